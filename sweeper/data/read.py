"""Rows of a data source: a file, a folder written by ``datasets``, or a data set on the Hub."""

from __future__ import annotations

import difflib
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweeper.data.files import READERS, Row, read_file
from sweeper.errors import DataError

_HUB_NAME = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")


def read_rows(source: str, base: Path) -> list[dict[str, Any]]:
    """Read all rows of a source.

    Args:
        source: A JSONL, JSON, CSV or Parquet file, or a folder written by ``datasets`` or a Hub data set with an
            optional ``:split``.
        base: The folder where relative paths start.

    Raises:
        DataError: If nothing is there, or it cannot be read; names the file and the line.
    """
    path, split = _locate(source, base)
    mode = _mode(path)
    if mode is None:
        name, _, hub_split = source.partition(":")
        if path.suffix.lower() in READERS or not _HUB_NAME.match(name):
            raise DataError(_missing(path))
        return _from_hub(name, hub_split or None, looked_at=path)
    if stat.S_ISDIR(mode):
        return _from_folder(path, split)
    if split is not None:
        raise DataError(f"{path}: is a file and has no splits; leave out ':{split}'")
    if not stat.S_ISREG(mode):
        raise DataError(f"{path}: is neither a file nor a folder (a pipe or a device); name a regular file")
    return read_file(path)


def _locate(source: str, base: Path) -> tuple[Path, str | None]:
    """Return the path and the split; a colon belongs to the path if that exists."""
    path = base / source
    name, colon, split = source.rpartition(":")
    if colon and name and split and _mode(path) is None and _mode(base / name) is not None:
        return base / name, split
    return path, None


def _mode(path: Path) -> int | None:
    """Return the file mode, or None if nothing is there."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{str(path)[:300]!r}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _missing(path: Path) -> str:
    try:
        near = difflib.get_close_matches(path.name, os.listdir(path.parent), n=1)
    except OSError as error:
        return f"{path}: no such file; its folder cannot be listed: {error.strerror}"
    hint = f"did you mean {near[0]!r}?" if near else f"nothing in {path.parent} has a similar name"
    return f"{path}: no such file; {hint}"


def _from_folder(path: Path, split: str | None) -> list[Row]:
    if _mode(path / "state.json") is None and _mode(path / "dataset_dict.json") is None:
        raise DataError(f"{path}: is a folder, but not one that datasets.save_to_disk wrote; name a file in it")
    import datasets  # slow to import, and most data are plain files

    loaded = _attempt(lambda: datasets.load_from_disk(str(path)), f"{path}: cannot be read as a folder of datasets")
    return _rows(loaded, str(path), split)


def _from_hub(name: str, split: str | None, looked_at: Path) -> list[Row]:
    import datasets  # slow to import, and most data are plain files

    loaded = _attempt(
        lambda: datasets.load_dataset(name), f"{name}: no such file or folder ({looked_at}), and not from the Hub"
    )
    return _rows(loaded, name, split)


def _attempt(load: Callable[[], Any], fault: str) -> Any:
    try:
        return load()
    except Exception as error:  # datasets raises what its many parts raise
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{fault}: {first_line}") from error


def _rows(loaded: Any, name: str, split: str | None) -> list[Row]:
    """Return the rows of a data set, or of the wanted split of several."""
    if isinstance(loaded, dict):
        available = list(loaded)
        if split is None and len(available) != 1:
            raise DataError(f"{name}: has several splits; write one of {', '.join(f'{name}:{s}' for s in available)}")
        chosen = available[0] if split is None else split
        if chosen not in loaded:
            raise DataError(f"{name}: has no split {chosen!r}; it has {', '.join(available)}")
        loaded = loaded[chosen]
    elif split is not None:
        raise DataError(f"{name}: holds one data set and no splits; leave out ':{split}'")
    rows: list[Row] = _attempt(loaded.to_list, f"{name}: cannot be read")
    if not rows:
        raise DataError(f"{name}: has no rows; name another split or source")
    return rows
