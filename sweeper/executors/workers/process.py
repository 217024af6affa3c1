"""One worker of a study: a process that runs trials of it on one device, as whoever started it sees it.

What the two say to each other goes over a ``JsonChannel``; the trials themselves are in the database.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from socket import socketpair
from typing import Any

from sweeper.config.base import Frozen
from sweeper.errors import StudyInterrupted, UserError
from sweeper.executors.channel import JsonChannel

COMMAND = (sys.executable, "-m", "sweeper.study.worker")
STOPPED = StudyInterrupted.exit_code
"""How a worker ends that was asked to stop."""

_TAIL_LINES = 15
_TAIL_BYTES = 8_192
_END_S = 10.0


class WorkerJob(Frozen):
    """What a worker is told.

    Attributes:
        study: Name of the study.
        home: The home that holds its files, as this worker sees it.
        device: ``cpu`` or ``cuda:N``, as this worker sees it.
        n_workers: Number of workers of the study at its start, this one included.
        artifacts: Where the study's files are, for a worker with a home of its own; None where the home has them.
        storage: The database, for the same; None where the environment says it (``SWEEPER_STORAGE``).
    """

    study: str
    home: Path
    device: str
    n_workers: int = 1
    artifacts: str | None = None
    storage: str | None = None


class WorkerStatus(Frozen):
    """What is known of a worker at a moment, and what it said since the moment before.

    Attributes:
        notes: What it said.
        ended: Trials that ended in it.
        words: How often it has said something in all; a step of a trial is a word too, once a second.
        busy: Whether more words are due: a trial runs in it, or it loads what they need.
        exit_code: How it ended; negative by a signal; None while it runs.
        waits: Whether there is no room for it yet, so that it has not begun.
        lost: Whether the machine that it was on went, and nothing is known of how it ended.
        fault: Class and text of the error, where the user has something to mend.
        tail: The last lines it wrote, once it has ended.
    """

    notes: tuple[str, ...] = ()
    ended: int = 0
    words: int = 0
    busy: bool = False
    exit_code: int | None = None
    waits: bool = False
    lost: bool = False
    fault: tuple[str, str] | None = None
    tail: str = ""

    @property
    def how(self) -> str:
        """How it ended, in words, with the last line that it wrote."""
        if self.lost:
            return f"was lost: {self.tail}"
        code, last = self.exit_code or 0, self.tail.strip().rpartition("\n")[2]
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        if code == -signal.SIGKILL:
            how += ", which the system does where main memory runs out"
        return f"{how}: {last}" if last else how


class WorkerProcess:
    """A worker on this machine.

    It ends with this process, however that ends: it reads the end of its line. It has a process group of its own, so
    that Ctrl-C is for whoever runs the study, and so that all it started can be ended with it.

    Args:
        job: What it is told.
        log: Where it writes what would go to a terminal; added to.
        environment: Variables it has beside those of this process.
    """

    def __init__(self, job: WorkerJob, log: Path, environment: Mapping[str, str]) -> None:
        ours, theirs = socketpair()
        self._line = JsonChannel(ours)
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file, theirs:
            self._log_began = file.tell()
            self._process = subprocess.Popen(
                [*COMMAND, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**os.environ, **environment},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._line, selectors.EVENT_READ)
        self._listening = True
        self._words = 0
        self._open: set[int] = set()
        self._loading = True
        self._fault: tuple[str, str] | None = None
        self._line.send(job.model_dump(mode="json"))

    @property
    def pid(self) -> int:
        """Its process, which leads the process group."""
        return self._process.pid

    def pulse(self) -> WorkerStatus:
        """Take what it said since the last call, without waiting."""
        exit_code = self._process.poll()  # before listening: what it said until then is heard below
        notes, ended = list[str](), 0
        while self._listening and self._selector.select(0):
            values = self._line.receive()
            if values is None:
                self._listening = False
                break
            self._words += len(values)
            for value in values:
                match value:
                    case {"loads": text}:
                        self._loading = True
                    case {"note": text}:
                        notes.append(text)
                        self._loading = False
                    case {"began": number}:
                        self._open.add(number)
                        self._loading = False
                    case {"ended": number}:
                        self._open.discard(number)
                        ended += 1
                    case {"left": number}:
                        self._open.discard(number)
                    case {"fault": [name, text]}:
                        self._fault = (name, text)
        return WorkerStatus(
            notes=tuple(notes),
            ended=ended,
            words=self._words,
            busy=self._loading or bool(self._open),
            exit_code=exit_code,
            fault=self._fault,
            tail="" if exit_code is None else self._tail(),
        )

    def ask_to_stop(self) -> None:
        """Ask it to put its trials on disk and leave."""
        self._line.send({"stop": True})

    def end(self) -> None:
        """End the process and all it started, and wait for it."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):  # a process that the kernel holds fast is not waited for for ever
            self._process.wait(_END_S)
        self._selector.close()
        self._line.close()

    def _tail(self) -> str:
        """Return the last lines it wrote."""
        with self._log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_began, size - _TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
        return "\n".join(text.splitlines()[-_TAIL_LINES:])


def user_error(fault: tuple[str, str]) -> UserError:
    """Return the error that a worker told of."""
    from sweeper import errors

    name, text = fault
    kind: Any = getattr(errors, name, errors.UserError)
    if not (isinstance(kind, type) and issubclass(kind, UserError)) or kind is errors.StudyFileError:
        kind = UserError
    error: UserError = kind(text)
    return error
