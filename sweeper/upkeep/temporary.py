"""Temporary files and folders of processes that are no more."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from sweeper.files.atomic import below

_OF_A_PROCESS = re.compile(r"\..+\.(\d+)\.tmp")
_OF_NOBODY = re.compile(r"\..+\.(tmp|old)")

SETTLED_S = 600.0
"""What was touched since may be another machine's, whose processes cannot be seen from here."""

LONG_SETTLED_S = 3600.0
"""The same of a name that holds no process: merging a large model takes its time."""


def temporaries(folder: Path) -> Iterator[Path]:
    """Yield what processes that are no more left half-written below a folder."""
    for path in sorted(path for path in below(folder) if path.name.startswith(".")):
        if path.exists() and is_left_behind(path):  # it may have gone with one that was yielded before
            yield path


def is_left_behind(path: Path) -> bool:
    """Tell whether a path is a temporary one that nobody works on any more."""
    if match := _OF_A_PROCESS.fullmatch(path.name):
        return not psutil.pid_exists(int(match[1])) and is_settled(path, SETTLED_S)
    return _OF_NOBODY.fullmatch(path.name) is not None and is_settled(path, LONG_SETTLED_S)


def is_settled(path: Path, seconds: float) -> bool:
    """Tell whether nothing at a path or directly below has changed for so long."""
    try:
        paths = [path, *path.iterdir()] if path.is_dir() and not path.is_symlink() else [path]
        return all(each.lstat().st_mtime <= time.time() - seconds for each in paths)
    except FileNotFoundError:  # it goes at this moment
        return False
