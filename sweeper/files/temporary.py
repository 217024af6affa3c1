"""The temporary files of processes that were killed while they wrote: who finds them removes them."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import psutil

_TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp")
"""What ``files.atomic.write_atomically`` and ``files.atomic.new_folder`` call what they write, until it is whole."""


def remove_leftovers(folder: Path) -> int:
    """Remove the temporary files and folders below ``folder`` whose process is no more, and return how many.

    Only where all who write there run on this machine: of another machine's processes nothing is known here.
    """
    abandoned = [path for path in _temporaries(folder) if is_abandoned(path)]
    for path in abandoned:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(abandoned)


def is_abandoned(path: Path) -> bool:
    """Tell whether a temporary file's process is no more; one that began after the file is another of that number."""
    match = _TEMPORARY.fullmatch(path.name)
    if match is None:
        return False
    try:
        process = psutil.Process(int(match[1]))
        return process.status() == psutil.STATUS_ZOMBIE or process.create_time() > path.stat().st_mtime + 1
    except (psutil.NoSuchProcess, FileNotFoundError):
        return True


def _temporaries(folder: Path) -> list[Path]:
    """Find them without looking into them: what is removed as a whole needs no second glance."""
    found = []
    for place, folders, files in os.walk(folder):
        found += [Path(place) / name for name in (*folders, *files) if _TEMPORARY.fullmatch(name)]
        folders[:] = [name for name in folders if not _TEMPORARY.fullmatch(name)]
    return found
