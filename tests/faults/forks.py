"""A server that has torch and sweeper loaded, and forks a process for each ``sweeper`` command.

Importing takes nine seconds and a tiny study two, so each process is a copy of one that has imported everything. It has
a session of its own, and ends only by itself or by whoever kills it: whatever it started has to notice that.

    python -m tests.faults.forks DESCRIPTOR      (started by ``Forks``; requests and events are JSON lines)
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_IMPORT_S = 300.0
"""Nine seconds, where nothing else runs."""

OFFLINE = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True)
class Forked:
    """A process that the server forked."""

    forks: Forks
    pid: int
    began: float

    def wait(self, timeout_s: float) -> int | None:
        """Return its exit status, the negated signal where one ended it; None where it still runs after so long."""
        return self.forks.wait(self.pid, timeout_s)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process alone, not to what it started."""
        os.kill(self.pid, number)


class Forks:
    """The server, as those see it who want processes; a context manager that ends it and all its processes."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.forks", str(theirs.fileno())],
                cwd=REPOSITORY,
                env={**os.environ, **ONE_THREAD, **OFFLINE},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._line = ours
        self._rest = b""
        self._ended: dict[int, int] = {}
        self._pids: list[int] = []

    def __enter__(self) -> Forks:
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()  # the server kills what it forked, and ends, once it has imported everything
        try:
            self._server.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()

    def sweeper(
        self,
        *arguments: str,
        home: Path,
        log: Path,
        fault: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Forked:
        """Fork a process that is ``sweeper ARGUMENTS`` on ``home``; ``fault`` is what happens to it (``child.py``)."""
        asked = {"arguments": arguments, "home": str(home), "log": str(log), "fault": dict(fault or {})}
        self._line.sendall(json.dumps({**asked, "environment": dict(environment or {})}).encode() + b"\n")
        self._hear(until=lambda: bool(self._pids), timeout_s=_IMPORT_S)
        if not self._pids:
            raise TimeoutError(f"the fork server has not imported everything within {_IMPORT_S:g} s")
        return Forked(self, self._pids.pop(), time.monotonic())

    def wait(self, pid: int, timeout_s: float) -> int | None:
        """Return the exit status of a process, None where it still runs after so long."""
        self._hear(until=lambda: pid in self._ended, timeout_s=timeout_s)
        return self._ended.get(pid)

    def _hear(self, until: Any, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        while not until():
            self._line.settimeout(max(0.001, end - time.monotonic()))
            try:
                read = self._line.recv(65536)
            except TimeoutError:
                return
            if not read:
                raise RuntimeError("the fork server has died")
            *lines, self._rest = (self._rest + read).split(b"\n")
            for line in lines:
                event = json.loads(line)
                if "pid" in event:
                    self._pids.append(event["pid"])
                else:
                    self._ended[event["ended"]] = event["status"]


def _preload() -> None:
    """Import what commands import, and nothing that starts a thread: threads do not survive a fork."""
    import trl
    from torch import set_num_threads

    from sweeper.cli.main import COMMANDS

    set_num_threads(1)
    for command in ("run", "orders"):
        __import__(f"sweeper.cli.{COMMANDS[command].module}")
    flow = ("sweeper.cli.live", "sweeper.cli.results", "sweeper.study.run", "sweeper.study.pipeline")
    for module in (*flow, "tests.faults.child"):
        __import__(module)
    _ = trl.SFTTrainer, trl.SFTConfig  # imported when they are first named


def serve(line: socket.socket) -> None:
    """Fork what is asked for, and tell what ended, until whoever asks is gone."""
    wake, waker = socket.socketpair()
    wake.setblocking(False)
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: set[int] = set()
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(line, selectors.EVENT_READ)
        selector.register(wake, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select(1.0):
                if key.fileobj is wake:
                    wake.recv(4096)
                    continue
                read = line.recv(65536)
                if not read:
                    for pid in running:
                        os.kill(pid, signal.SIGKILL)
                    return
                *requests, rest = (rest + read).split(b"\n")
                for request in requests:
                    pid = _fork(json.loads(request), line)
                    running.add(pid)
                    line.sendall(json.dumps({"pid": pid}).encode() + b"\n")
            _tell_ended(line, running)


def _tell_ended(line: socket.socket, running: set[int]) -> None:
    for pid in list(running):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            running.discard(pid)
            line.sendall(json.dumps({"ended": pid, "status": os.waitstatus_to_exitcode(status)}).encode() + b"\n")


def _fork(request: Mapping[str, Any], line: socket.socket) -> int:
    pid = os.fork()
    if pid:
        return pid
    from tests.faults.child import become

    line.close()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    become(request)


if __name__ == "__main__":
    asked = socket.socket(fileno=int(sys.argv[1]))
    _preload()
    serve(asked)
    os._exit(0)  # unloading torch takes seconds
