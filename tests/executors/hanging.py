"""A process that hangs in the way it is told to, under a watchdog, with a child that hangs too; a script for the tests.

Without torch: it has to hang, and to start soon.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import time
from pathlib import Path

from sweeper.executors.watchdog import Watchdog


def steps() -> None:
    """Go forward for longer than the timeout."""
    for _ in range(20):
        time.sleep(0.1)
        watchdog.keep_alive()


def hang_in_python() -> None:
    time.sleep(600)


def hang_with_the_lock() -> None:
    """Hang in C, as a broken driver does: no other thread of Python's runs."""
    ctypes.PyDLL(None).sleep(600)


if __name__ == "__main__":
    how, folder, timeout_s = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    with subprocess.Popen(["sleep", "600"]) as child, Watchdog(timeout_s, folder / "hang.txt") as watchdog:
        (folder / "child").write_text(str(child.pid))
        steps()
        (folder / "stepped").touch()
        watchdog.keep_alive("evaluating")
        match how:
            case "python":
                hang_in_python()
            case "lock":
                hang_with_the_lock()
        child.kill()
