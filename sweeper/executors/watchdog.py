"""Ends this process where what it trains hangs, so that another worker takes over what it ran.

Nothing in the process can be trusted to clean up then, and nothing is written down but where it hangs: a lease that is
no longer renewed says the rest.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import psutil

_REARM_S = 1.0
"""How often at most to put off the backstop: a step may be shorter than that takes."""

_BACKSTOP = 1.25
"""After how much of the timeout the backstop ends the process, where the watchdog itself cannot."""


class Watchdog:
    """A context manager, in which a thread waits for ``alive`` to be called again and again.

    The thread writes where every thread stands, then ends this process and all that it started, by SIGKILL. Where
    something holds the interpreter's lock, so that no thread of Python's runs, ``faulthandler``'s own thread writes
    the same a little later, and ends this process alone; its children see to that themselves.

    Args:
        timeout_s: Seconds without a sign of life after which the process hangs; None is never.
        report: The file to write where it hangs.
    """

    def __init__(self, timeout_s: float | None, report: Path) -> None:
        self._timeout_s = timeout_s
        self._report = report
        self._seen = time.monotonic()
        self._rearmed = self._seen
        self._what = "starting"
        self._ended = threading.Event()
        self._file: IO[str] | None = None
        self._thread = threading.Thread(target=self._watch, name="sweeper-watchdog", daemon=True)

    def keep_alive(self, what: str = "training") -> None:
        """Say that something goes forward, and what; cheap enough for every step."""
        self._what, self._seen = what, time.monotonic()
        if self._file is not None and self._seen - self._rearmed >= _REARM_S:
            self._arm()

    def __enter__(self) -> Self:
        if self._timeout_s is not None:
            self._report.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._report.open("w", encoding="utf-8")
            self.keep_alive("starting")
            self._arm()
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        self._ended.set()
        faulthandler.cancel_dump_traceback_later()
        self._thread.join()
        self._file.close()
        self._file = None
        self._report.unlink(missing_ok=True)  # nothing hung

    def _arm(self) -> None:
        assert self._timeout_s is not None and self._file is not None
        self._rearmed = time.monotonic()
        faulthandler.dump_traceback_later(_BACKSTOP * self._timeout_s + _REARM_S, exit=True, file=self._file)

    def _watch(self) -> None:
        assert self._timeout_s is not None
        while not self._ended.wait(min(1.0, self._timeout_s / 4)):
            if time.monotonic() - self._seen >= self._timeout_s:
                self._say_where()
                end_with_children()

    def _say_where(self) -> None:
        text = f"no sign of life for {self._timeout_s:g} s, the last one while {self._what}; the threads stand here:"
        with suppress(OSError, ValueError):  # a full disk keeps nobody alive
            assert self._file is not None
            print(text, file=self._file, flush=True)
            faulthandler.dump_traceback(self._file, all_threads=True)
            self._file.flush()
        with suppress(OSError, ValueError):
            print(f"this process hangs and is ended: {text} see {self._report}", file=sys.stderr, flush=True)


def end_with_children() -> None:
    """End this process by SIGKILL, with its process group where it leads one, and with all that it started.

    A group that it does not lead is left alone: that of a script which runs it, for example.
    """
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
