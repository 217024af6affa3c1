"""What a forked process becomes: ``sweeper`` with its arguments, and with a fault that waits for it.

A fault is a mapping with ``kind`` and, for those that strike by themselves, ``at``:

- ``operation``: the process is killed before its ``at``-th change of a file or of the database.
- ``line``: it is killed ``lines`` lines of sweeper's own code after that.
- ``power``: as ``operation``, and every file of the home that was written and not synced loses its end, as it may
  where the power fails: the disk holds what ``fsync`` was called for, and anything or nothing of the rest.
- ``clock``: after ``after_s`` the time of day, though not the monotonic clock, is ``seconds`` from what it was.
- ``count``: nothing; how many changes there were is written to ``counted`` at the end.

Nothing of this is in sweeper itself: it hears no word of being tested.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import sweeper

SWEEPER = str(Path(sweeper.__file__).parent) + os.sep
STEPS = "steps.log"
"""Where a home's processes write a line for every optimizer step, so that repeated ones are counted."""

_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink"}
_WRITES = os.O_WRONLY | os.O_RDWR


def become(request: Mapping[str, Any]) -> NoReturn:
    """Be the command that was asked for, to the end of the process."""
    os.setsid()
    home = Path(request["home"])
    home.mkdir(parents=True, exist_ok=True)
    os.chdir(home.parent)
    os.environ["SWEEPER_HOME"] = str(home)
    os.environ.update(request["environment"])
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = ["sweeper", *request["arguments"]]
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    code = 1
    try:
        _count_steps(home)
        _expect(request["fault"], home)
        from sweeper.cli.main import main

        main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # what would be a traceback at the end of any Python process
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _count_steps(home: Path) -> None:
    from sweeper.executors.lifecycle.recorder import Recorder

    steps = os.open(home.parent / STEPS, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    called = Recorder.__call__

    def counting(self: Recorder, step: int, metrics: Mapping[str, float]) -> Any:
        if "loss" in metrics:
            os.write(steps, b".")
        return called(self, step, metrics)

    Recorder.__call__ = counting  # type: ignore[method-assign]


def _expect(fault: Mapping[str, Any], home: Path) -> None:
    kind, at = fault.get("kind"), fault.get("at", 0)
    if kind == "line":
        _on_operations(_At(at, lambda: _on_lines(_At(fault["lines"], die))), home, set())
    elif kind == "operation":
        _on_operations(_At(at, die), home, set())
    elif kind == "power":
        synced: set[tuple[int, int]] = set()
        _on_operations(_At(at, lambda: lose_power(home, synced, random.Random(fault["seed"]))), home, synced)
    elif kind == "clock":
        _set_clock(fault["seconds"], fault["after_s"])
    elif kind == "count":
        operations = _At(0, die)
        _on_operations(operations, home, set())
        counted, leave = Path(fault["counted"]), os._exit

        def write(code: int) -> None:
            counted.write_text(str(operations.count))
            leave(code)

        os._exit = write  # type: ignore[assignment]


class _At:
    """Counts, and does something at the ``at``-th time."""

    def __init__(self, at: int, do: Callable[[], None]) -> None:
        self.count = 0
        self._at = at
        self._do = do

    def __call__(self) -> None:
        self.count += 1
        if self.count == self._at:
            self._do()


def die() -> None:
    """End as ``kill -9`` ends a process: nothing is tidied up."""
    os.kill(os.getpid(), signal.SIGKILL)


def lose_power(home: Path, synced: set[tuple[int, int]], draw: random.Random) -> None:
    """Take away the end of every file that was written by this process and not synced, and end."""
    for path in sorted(home.rglob("*")):
        if not path.is_file() or path.is_symlink() or ".db" in path.name:  # SQLite syncs without asking Python
            continue
        status = path.stat()
        if status.st_mtime_ns >= _BEGAN and (status.st_dev, status.st_ino) not in synced and status.st_size:
            os.truncate(path, draw.randrange(status.st_size))
    die()


_BEGAN = 0


def _set_clock(seconds: float, after_s: float) -> None:
    """Let the time of day jump, for all that asks Python for it."""
    import datetime
    import time

    told, begun = time.time, time.monotonic()

    def jump() -> float:
        return seconds if time.monotonic() - begun > after_s else 0.0

    class Jumping(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return datetime.datetime.fromtimestamp(told() + jump(), tz)

    time.time = lambda: told() + jump()
    for module in [module for name, module in sys.modules.items() if name.startswith(("sweeper", "optuna"))]:
        if vars(module).get("datetime") is datetime.datetime:
            module.datetime = Jumping  # type: ignore[attr-defined]


def _on_lines(then: Callable[[], None]) -> None:
    """Call ``then`` before each further line of sweeper's own code in this thread."""

    def local(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            then()
        return local

    def tracer(frame: FrameType, event: str, _: Any) -> Any:
        return local if frame.f_code.co_filename.startswith(SWEEPER) else None

    frame: FrameType | None = sys._getframe()
    while frame is not None:  # those that run already
        if frame.f_code.co_filename.startswith(SWEEPER):
            frame.f_trace = local
        frame = frame.f_back
    sys.settrace(tracer)


def _on_operations(then: Callable[[], None], home: Path, synced: set[tuple[int, int]]) -> None:
    """Call ``then`` before each change of a file in the home or of the database; keep which files were synced."""
    import time

    from sqlalchemy import Engine, event

    global _BEGAN
    _BEGAN = time.time_ns() - 20_000_000  # what file systems round to
    inside, fsync = str(home), os.fsync

    def audited(name: str, given: tuple[Any, ...]) -> None:
        if name == "open":
            path, _, flags = given
            if isinstance(path, str | os.PathLike) and flags & _WRITES and str(path).startswith(inside):
                then()
        elif name in _CHANGES:
            then()

    def syncing(descriptor: Any) -> None:
        then()
        fsync(descriptor)
        status = os.fstat(descriptor)
        synced.add((status.st_dev, status.st_ino))

    os.fsync = syncing
    sys.addaudithook(audited)

    @event.listens_for(Engine, "before_cursor_execute")
    def _executing(*given: Any) -> None:
        if not given[2].lstrip().upper().startswith(("SELECT", "PRAGMA", "BEGIN")):
            then()

    @event.listens_for(Engine, "commit")
    def _committing(_: Any) -> None:
        then()
