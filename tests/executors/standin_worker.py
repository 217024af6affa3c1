"""A worker that trains nothing: it does what a test wrote down for it, so that its coordinator is tested alone.

``SCRIPT`` names a file: one line a start, in the order of starts, of what to do one after the other.
"""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from sweeper.executors.channel import JsonChannel
from sweeper.executors.workers.process import STOPPED
from sweeper.study.worker import WorkerListener, listen


class Stop(threading.Event):
    is_set = property(threading.Event.is_set)


def next_line(script: Path) -> str:
    """Take the next line of the script, and note that this process did."""
    with script.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        first, *rest = file.read().splitlines() or [""]
        file.seek(0)
        file.truncate()
        file.write("".join(f"{line}\n" for line in rest))
    with script.with_suffix(".started").open("a") as file:
        environment = ",".join(os.environ.get(name, "") for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"))
        file.write(f"{os.getpid()} {environment}\n")
    return first


def hang(value: str) -> None:
    time.sleep(600)


def child(value: str) -> None:
    started = subprocess.Popen(["sleep", "600"])
    Path(os.environ["SCRIPT"]).with_suffix(".child").write_text(str(started.pid))


def others(value: str) -> None:
    """Wait until so many have started, this one among them; for a minute."""
    until, started = time.monotonic() + 60, Path(os.environ["SCRIPT"]).with_suffix(".started")
    while len(started.read_text().splitlines()) < int(value) and time.monotonic() < until:
        time.sleep(0.05)


def die(value: str) -> None:
    print("something broke", file=sys.stderr, flush=True)
    os._exit(int(value))


def kill(value: str) -> None:
    os.kill(os.getpid(), int(value))


def main() -> int:
    line, stop = JsonChannel(socket.socket(fileno=int(sys.argv[1]))), Stop()
    job, said = listen(line, stop), WorkerListener(line)

    def until_stopped(value: str) -> None:
        while not stop.is_set:
            time.sleep(0.05)
        sys.exit(STOPPED)

    def fault(value: str) -> None:
        line.send({"fault": ["DataError", "no rows in here"]})
        sys.exit(2)

    steps = {
        "note": lambda value: said.note(f"{value} on {job.device}"),
        "trial": lambda value: line.send({"began": int(value)}),
        "ended": lambda value: line.send({"ended": int(value)}),
        "stop": until_stopped,
        **{step.__name__: step for step in (hang, child, others, die, kill, fault)},
    }
    for step in next_line(Path(os.environ["SCRIPT"])).split():
        what, _, value = step.partition("=")
        steps[what](value)
    return 0


if __name__ == "__main__":
    sys.exit(main())
