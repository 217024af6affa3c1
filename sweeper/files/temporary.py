"""Temporary files and folders, and the removal of those that a killed process left behind."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from sweeper.machine import machine_id

_OWNED = re.compile(r"\..+\.([0-9a-f]{16})-(\d+)\.tmp")
_UNOWNED = re.compile(r"\..+\.(tmp|old)")

SETTLED_S = 600.0
"""A temporary file of another machine, whose processes cannot be seen, is left behind if unchanged for this long."""

LONG_SETTLED_S = 3600.0
"""The same for a name without a process: merging a large model takes a while."""


def temporary_path(path: Path, pid: int | None = None) -> Path:
    """Return where this process (or ``pid``, of this machine) writes ``path`` until it is complete."""
    return path.with_name(f".{path.name}.{machine_id()}-{pid or os.getpid()}.tmp")


def remove_leftovers(folder: Path) -> int:
    """Remove everything below ``folder`` that is left behind, and return how many files and folders it was."""
    paths = list(leftovers(folder))
    for path in paths:
        remove(path)
    return len(paths)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, if it is still there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def leftovers(folder: Path) -> Iterator[Path]:
    """Yield the temporary files and folders below ``folder`` that are left behind, without descending into them."""
    for place, folders, files in os.walk(folder):
        temporary = sorted(name for name in (*folders, *files) if _UNOWNED.fullmatch(name))
        folders[:] = [name for name in folders if name not in temporary]
        yield from (path for name in temporary if is_left_behind(path := Path(place, name)))


def is_left_behind(path: Path) -> bool:
    """Return whether a path is a temporary one that no process is working on any more.

    On this machine its process must be gone, or its number now belongs to a process younger than the file. Elsewhere
    the path must have been unchanged for a while.
    """
    match = _OWNED.fullmatch(path.name)
    if match is None:
        return _UNOWNED.fullmatch(path.name) is not None and is_settled(path, LONG_SETTLED_S)
    if match[1] != machine_id():
        return is_settled(path, SETTLED_S)
    try:
        process = psutil.Process(int(match[2]))
        return process.status() == psutil.STATUS_ZOMBIE or process.create_time() > path.lstat().st_mtime + 1
    except psutil.NoSuchProcess:
        return True
    except FileNotFoundError:  # its process has just completed or removed it
        return False


def is_settled(path: Path, seconds: float) -> bool:
    """Return whether nothing at a path, or directly inside it, has changed for ``seconds``."""
    try:
        paths = [path, *path.iterdir()] if path.is_dir() and not path.is_symlink() else [path]
        return all(each.lstat().st_mtime <= time.time() - seconds for each in paths)
    except FileNotFoundError:  # removed at this moment
        return False
