"""Parquet to rows, in small batches: a few kilobytes can unpack to terabytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sweeper.data.files import refuse_large_file, refuse_large_row, size_of
from sweeper.errors import DataError

_BATCH_ROWS = 64
"""Rows unpacked before their size is looked at: repeated values take no room in a file, and are counted only then."""


def read_parquet(path: Path) -> list[dict[str, Any]]:
    """Read all rows of a Parquet file.

    Raises:
        DataError: If it is broken, too large once unpacked, or holds what Python has no value for.
    """
    if path.stat().st_size == 0:
        raise DataError(f"{path}: is empty")
    try:
        with pq.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow.names)
            groups = (file.metadata.row_group(index) for index in range(file.metadata.num_row_groups))
            refuse_large_file(sum(group.total_byte_size for group in groups), path, "unpacks to more than")
            return list(_rows(path, file))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is not a complete Parquet file: {error}. Write or copy it again") from error


def _check_columns(path: Path, names: list[str]) -> None:
    if len(set(names)) != len(names) or not all(name.strip() for name in names):
        raise DataError(f"{path}: every column needs a name of its own; found {names[:20]}")


def _rows(path: Path, file: pq.ParquetFile) -> Iterator[dict[str, Any]]:
    unpacked = number = 0
    for batch in file.iter_batches(batch_size=_BATCH_ROWS):
        for row in _plain(path, batch, number):
            number += 1
            size = size_of(row)
            refuse_large_row(size, f"{path}: row {number}")
            unpacked += size
            refuse_large_file(unpacked, path, "unpacks to more than")
            yield row


def _plain(path: Path, batch: pa.RecordBatch, before: int) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except (OverflowError, ValueError) as error:
        if isinstance(error, pa.ArrowException | UnicodeDecodeError):
            raise
        raise DataError(
            f"{path}: rows {before + 1} to {before + batch.num_rows}: hold a date or a time that is out of range "
            f"({error}); leave that column out"
        ) from error
    return rows
