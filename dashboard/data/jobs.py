"""Commands of sweeper that run in processes of their own, because they load models: what they said is kept on disk.

The process is known to the server that started it. After that server's end the files tell what became of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sweeper_dashboard.data import home

from sweeper.errors import SweeperError
from sweeper.paths import Home

State = Literal["none", "running", "done", "failed"]

_LONGEST = 4_000
_running: dict[Path, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class Job:
    """How a command stands.

    Attributes:
        state: ``none`` where it was never started.
        said: The last that it said of its progress or its failure, as plain text.
        output: What it printed; complete only once it is done.
    """

    state: State
    said: str = ""
    output: str = ""


def start(key: str, arguments: Sequence[str]) -> None:
    """Run ``sweeper`` with arguments in a process of its own; ``key`` names it from then on.

    Raises:
        SweeperError: If the same is being done already.
    """
    folder = _folder(key)
    if look(key).state == "running":
        raise SweeperError("this is being done already; wait until it has ended")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "code").unlink(missing_ok=True)
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        _running[folder] = subprocess.Popen(
            [sys.executable, "-m", "sweeper", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,  # Ctrl-C at the server's terminal is not meant for it
            env={**os.environ, "SWEEPER_HOME": str(Home.current().folder)},
        )


def look(key: str) -> Job:
    """Return how a command stands."""
    folder = _folder(key)
    process = _running.get(folder)
    if process is not None:
        code = process.poll()
        if code is None:
            return Job("running", _last_line(folder / "err"))
        (folder / "code").write_text(str(code))
        del _running[folder]
    if not (folder / "out").is_file():
        return Job("none")
    code_file = folder / "code"
    if not code_file.is_file():
        return Job("failed", "the dashboard was stopped while this ran; start it again")
    if code_file.read_text() == "0":
        return Job("done", output=(folder / "out").read_text(encoding="utf-8", errors="replace"))
    return Job("failed", _end(folder / "err").strip())


def _folder(key: str) -> Path:
    return Home.current().folder / "jobs" / key


def _last_line(path: Path) -> str:
    return next((line.strip() for line in reversed(_end(path).split("\n")) if line.strip()), "")


def _end(path: Path) -> str:
    """Return the end of what a command said; more is read than is kept, so that no part of a cut secret is."""
    return home.said(path.read_text(encoding="utf-8", errors="replace")[-2 * _LONGEST :])[-_LONGEST:]
