"""Atomic writes and removals: a crash at any instant leaves the old content or the new, never a part."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sweeper.files.temporary import remove, temporary_path
from sweeper.retry import retried


@retried
def write_atomically(path: Path, text: str, *, private: bool = False) -> None:
    """Write ``text`` to ``path`` so that a crash leaves the old content or the new, never a part.

    When this returns, the new content outlasts a power cut. Only its owner can ever read a ``private`` file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    mode = 0o600 if private else 0o666
    if private:
        temporary.unlink(missing_ok=True)  # an old one would keep its own mode
    with open(temporary, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_one(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """Return what ``write_json`` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder to fill, which replaces ``folder`` once it is on the disk; no crash or power cut leaves a part."""
    temporary = temporary_path(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        sync(temporary)
        discard(folder)
        temporary.rename(folder)
        _sync_one(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def below(folder: Path) -> Iterator[Path]:
    """Yield everything below a folder, parents first, ignoring what others remove meanwhile.

    Links are not followed. (``Path.rglob`` of Python 3.11 raises if a folder disappears before it is listed.)
    """
    for place, folders, files in os.walk(folder):
        yield from (Path(place, name) for name in (*folders, *files))


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder; what disappears meanwhile is not counted."""
    total = 0
    for each in (path, *(() if path.is_symlink() else below(path))):
        with suppress(FileNotFoundError):
            status = each.lstat()
            total += 0 if stat.S_ISDIR(status.st_mode) else status.st_size
    return total


def sync(folder: Path) -> None:
    """Write every file below ``folder`` to the disk, so that it outlasts a power cut."""
    for path in (*folder.rglob("*"), folder):
        _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def discard(folder: Path) -> None:
    """Remove a folder, if it is there, so that a crash leaves all of it or none under its name."""
    temporary = temporary_path(folder.with_name(f"{folder.name}-gone"))
    shutil.rmtree(temporary, ignore_errors=True)
    with suppress(FileNotFoundError):
        folder.rename(temporary)
    remove(temporary)
