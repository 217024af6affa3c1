"""Sweeper commands run in separate processes, because they load models; their output is kept on disk.

The server that started a process knows it; after that server's end the files tell what became of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from sweeper.errors import SweeperError
from sweeper.paths import Home
from sweeper_dashboard.data import home

State = Literal["none", "running", "done", "failed"]

_LONGEST = 4_000
_running: dict[Path, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class JobStatus:
    """The state of a command.

    Attributes:
        state: ``none`` where it was never started.
        said: Its last message about its progress or failure, as plain text.
        output: What it printed; complete only once it is done.
    """

    state: State
    said: str = ""
    output: str = ""


def start(key: str, arguments: Sequence[str]) -> None:
    """Run a ``sweeper`` command in a separate process, known by ``key``.

    Raises:
        SweeperError: If it is already running.
    """
    folder = _folder(key)
    if look(key).state == "running":
        raise SweeperError("this is already running; wait until it has ended")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "code").unlink(missing_ok=True)
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        _running[folder] = spawn(Home.current(), arguments, out, err)


def spawn(current: Home, arguments: Sequence[str], out: IO[bytes], err: IO[bytes]) -> subprocess.Popen[bytes]:
    """Run a ``sweeper`` command on a home, in a process that Ctrl-C at the server's terminal does not reach."""
    return subprocess.Popen(
        [sys.executable, "-m", "sweeper", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        start_new_session=True,
        env={**os.environ, "SWEEPER_HOME": str(current.folder)},
    )


def look(key: str) -> JobStatus:
    """Return the state of a command."""
    folder = _folder(key)
    process = _running.get(folder)
    if process is not None:
        code = process.poll()
        if code is None:
            return JobStatus("running", _last_line(folder / "err"))
        (folder / "code").write_text(str(code))
        del _running[folder]
    if not (folder / "out").is_file():
        return JobStatus("none")
    code_file = folder / "code"
    if not code_file.is_file():
        return JobStatus("failed", "the dashboard stopped while this was running; start it again")
    if code_file.read_text() == "0":
        return JobStatus("done", output=(folder / "out").read_text(encoding="utf-8", errors="replace"))
    return JobStatus("failed", _end(folder / "err").strip())


def _folder(key: str) -> Path:
    return Home.current().folder / "jobs" / key


def _last_line(path: Path) -> str:
    return next((line.strip() for line in reversed(_end(path).split("\n")) if line.strip()), "")


def _end(path: Path) -> str:
    """Return the end of a file; more is read than is returned, so that no secret is cut before it is redacted."""
    return home.said(path.read_text(encoding="utf-8", errors="replace")[-2 * _LONGEST :])[-_LONGEST:]
