"""The client of the worker: one worker for all threads, started on demand; imports no torch."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import uuid
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import suppress

from sweeper.paths import Home
from sweeper.playground.protocol import IDLE_S, Ask, Cancel, Event, Sampling, Subject, Turn
from sweeper.redact import redact

_LOOK_S = 0.3
"""Seconds between two events about the place in the queue."""

_ENDS = ("done", "failed")


class PendingRequest:
    """A request that was sent."""

    def __init__(self, playground: Playground, ask: Ask) -> None:
        self._playground = playground
        self.ask = ask
        self.events_in: queue.Queue[Event] = queue.Queue()

    def events(self) -> Generator[Event, None, None]:
        """Yield events until the request ends; while it waits, its place in the queue at intervals.

        Leaving the iteration early cancels the request.
        """
        try:
            while True:
                try:
                    event = self.events_in.get(timeout=_LOOK_S)
                except queue.Empty:
                    yield Event(id=self.ask.id, kind="queued", place=self._playground.place(self.ask.id))
                    continue
                yield event
                if event.kind in _ENDS:
                    return
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Cancel it, unless it has ended."""
        self._playground.cancel(self.ask.id)


class Playground:
    """The worker of one home, for any number of threads; a request starts it if it is not running."""

    def __init__(self, home: Home, idle_s: float = IDLE_S) -> None:
        self._home = home
        self._idle_s = idle_s
        self._lock = threading.RLock()
        self._process: subprocess.Popen[str] | None = None
        self._open: dict[str, PendingRequest] = {}

    @property
    def running(self) -> bool:
        """Whether the worker is running, and holds memory."""
        return self._process is not None and self._process.poll() is None

    def ask(self, subjects: Sequence[Subject], turns: Sequence[Turn], sampling: Sampling) -> PendingRequest:
        """Send a request to several subjects, answered in turn; ValidationError if there are none or too many."""
        request = Ask(id=uuid.uuid4().hex, subjects=tuple(subjects), turns=tuple(turns), sampling=sampling)
        asked = PendingRequest(self, request)
        with self._lock:
            self._open[request.id] = asked
            self._send(request)
        return asked

    def place(self, request: str) -> int:
        """Return the number of requests to be answered first."""
        with self._lock:
            return list(self._open).index(request) if request in self._open else 0

    def cancel(self, request: str) -> None:
        """Cancel a request, unless it has ended."""
        with self._lock:
            if request in self._open and self.running:
                self._send(Cancel(id=request))

    def close(self) -> None:
        """Kill the worker, and fail its open requests."""
        with self._lock:
            process, self._process = self._process, None
            open_, self._open = self._open, {}
        for asked in open_.values():
            asked.events_in.put(Event(id=asked.ask.id, kind="failed", text="the playground was closed"))
        if process is not None:
            process.kill()
            process.wait()

    def _send(self, request: Ask | Cancel) -> None:
        process = self._started()
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it has just exited; its reader sends the request again, or says why not
            process.stdin.write(request.model_dump_json() + "\n")
            process.stdin.flush()

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            command = [sys.executable, "-m", "sweeper.playground.worker", "--idle", str(self._idle_s)]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                env={**os.environ, "SWEEPER_HOME": str(self._home.folder)},
            )
            said: deque[str] = deque(maxlen=20)
            listening = threading.Thread(target=_keep, args=(self._process, said), daemon=True)
            listening.start()
            threading.Thread(target=self._hear, args=(self._process, listening, said), daemon=True).start()
        return self._process

    def _hear(self, process: subprocess.Popen[str], listening: threading.Thread, said: deque[str]) -> None:
        """Pass events to their requests until the worker exits."""
        assert process.stdout is not None
        for line in process.stdout:
            event = Event.model_validate_json(line)
            with self._lock:
                asked = self._open.pop(event.id, None) if event.kind in _ENDS else self._open.get(event.id)
            if asked is not None:
                asked.events_in.put(event)
        process.wait()
        listening.join()
        for stream in (process.stdin, process.stdout, process.stderr):
            with suppress(OSError):
                if stream is not None:
                    stream.close()
        self._over(process, said)

    def _over(self, process: subprocess.Popen[str], said: Sequence[str]) -> None:
        with self._lock:
            if self._process is not process:
                return
            self._process = None
            left = list(self._open.values())
            if process.returncode == 0:  # it was idle and exited while these were on their way
                for asked in left:
                    self._send(asked.ask)
                return
            self._open.clear()
        for asked in left:
            asked.events_in.put(Event(id=asked.ask.id, kind="failed", text=_why(process.returncode, said)))


def _keep(process: subprocess.Popen[str], said: deque[str]) -> None:
    assert process.stderr is not None
    said.extend(process.stderr)


def _why(code: int, said: Sequence[str]) -> str:
    how = f"with exit code {code}"
    if code < 0:
        how = f"by {signal.Signals(-code).name}"
        if -code == signal.SIGKILL:
            how += ", as the system does when memory runs out"
    last = next((line.strip() for line in reversed(said) if line.strip()), "")
    told = f"; its last message: {redact(last)[:300]}" if last else ""
    return f"the playground's worker ended {how}{told}. The next request starts a new one"
