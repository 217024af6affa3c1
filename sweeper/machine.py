"""The identity of this machine and of the processes on it."""

from __future__ import annotations

import os
import socket
from functools import cache
from hashlib import sha256
from pathlib import Path

import psutil


@cache
def machine_id() -> str:
    """Return 16 hexadecimal digits that identify this machine since its last boot, and its process number space.

    The host name alone is not enough: two containers may share it, and process numbers start again after a reboot.
    """
    parts = [socket.gethostname()]
    for path in (Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")):
        if path.exists():
            parts.append(os.readlink(path) if path.is_symlink() else path.read_text(encoding="ascii").strip())
    return sha256(" ".join(parts).encode()).hexdigest()[:16]


def this_host() -> str:
    """Return the host name of this machine, followed by its ``machine_id``."""
    return f"{socket.gethostname()} {machine_id()}"


def process_started(pid: int) -> float | None:
    """Return when a process of this machine started, in an arbitrary unit; None if it is not running.

    On Linux this counts from boot: the time of day that psutil derives from it shifts when the clock is set.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self/stat").exists() else _started_by_the_clock(pid)
    state, *fields = text.rpartition(")")[2].split()
    return None if state in "ZX" else float(fields[18])  # a zombie is dead even before its parent has reaped it


def _started_by_the_clock(pid: int) -> float | None:
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None
