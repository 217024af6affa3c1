"""How large a row and a file may be: rows are held in memory, and a small file can unpack to a large one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sweeper.errors import DataError

ROW_LIMIT_BYTES = 5_000_000
"""A row larger than this is taken for a mistake and refused."""

FILE_LIMIT_BYTES = 2_000_000_000
"""Of a single file, unpacked; a study can name several."""


def size_of(row: Any) -> int:
    """Return about how many bytes a row's texts and numbers take; nesting of any depth is no danger."""
    size, waiting = 0, [row]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str | bytes):
            size += len(value)
        elif isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list | tuple):
            waiting += value
        else:
            size += 8
    return size


def refuse_large_row(size: int, place: str) -> None:
    """Hold that a row is of a sensible size.

    Raises:
        DataError: If it is not.
    """
    if size > ROW_LIMIT_BYTES:
        raise DataError(f"{place}: is a row of more than {ROW_LIMIT_BYTES:,} bytes; split it, or leave it out")


def refuse_large_file(size: int, path: Path, what: str = "is larger than") -> None:
    """Hold that a file's rows can be held in memory.

    Raises:
        DataError: If they cannot.
    """
    if size > FILE_LIMIT_BYTES:
        raise DataError(
            f"{path}: {what} {FILE_LIMIT_BYTES / 1e9:g} GB, more than is read into memory at once; "
            "split it and name the parts in a list, or name fewer rows"
        )
