"""JSONL, JSON, CSV and Parquet files to rows; every error names the file and the line.

Rows are held in memory, so large ones are refused: a small file can unpack to a huge one.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

Row = dict[str, Any]

ROW_LIMIT_BYTES = 5_000_000
"""A larger row is taken for a mistake."""

FILE_LIMIT_BYTES = 2_000_000_000
"""Of a single file, unpacked; a study can name several."""

INDEX_COLUMNS = ("Unnamed: 0", "__index_level_0__")
"""Names that pandas gives to a column of row numbers."""

_BATCH_ROWS = 64
"""Rows of a Parquet file that are unpacked before their size is checked."""

_ENCODINGS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_COMPRESSED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2"}


def read_file(path: Path) -> list[Row]:
    """Read all rows of a regular file, by its suffix.

    Raises:
        DataError: If the type is unknown, or the file is empty, unreadable or broken.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path}: unknown file type {path.suffix or '(no suffix)'!r}; "
            f"readable are {', '.join(sorted(READERS))}, unpacked"
        )
    try:
        rows = reader(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not rows:
        raise DataError(f"{path}: has no rows; add some, or name another file")
    return rows


def size_of(row: Any) -> int:
    """Return roughly the bytes of a row's texts and numbers, without recursion: rows may be nested to any depth."""
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
    """Raise DataError if a row is larger than ``ROW_LIMIT_BYTES``."""
    if size > ROW_LIMIT_BYTES:
        raise DataError(f"{place}: is a row of more than {ROW_LIMIT_BYTES:,} bytes; split it, or leave it out")


def refuse_large_file(size: int, path: Path, what: str = "is larger than") -> None:
    """Raise DataError if a file is larger than ``FILE_LIMIT_BYTES``."""
    if size > FILE_LIMIT_BYTES:
        raise DataError(
            f"{path}: {what} {FILE_LIMIT_BYTES / 1e9:g} GB, more than is read into memory at once; "
            "split it and name the parts in a list, or name fewer rows"
        )


def _read_jsonl(path: Path) -> list[Row]:
    rows = []
    # Only a line feed ends a line of JSONL; splitlines() would also cut at separators inside strings.
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        _refuse_large(line, f"{path}:{number}")
        value = _parse(line, path, first_line=number)
        if not isinstance(value, dict):
            raise DataError(f"{path}:{number}: a JSON object {{...}} is due on every line; found {_name(value)}")
        rows.append(value)
    return rows


def _read_json(path: Path) -> list[Row]:
    text = _text(path)
    first, _, rest = text.strip().partition("\n")
    if rest and first.startswith("{") and first.rstrip().endswith("}"):
        return _read_jsonl(path)  # one object a line, as many tools write .json
    value = _parse(text, path)
    if isinstance(value, dict) and len(lists := [found for found in value.values() if isinstance(found, list)]) == 1:
        (value,) = lists  # {"data": [...]}
    if not isinstance(value, list):
        raise DataError(f"{path}: a list of objects is due; found {_name(value)}")
    for number, row in enumerate(value, 1):
        if not isinstance(row, dict):
            raise DataError(f"{path}: item {number}: an object is due; found {_name(row)}")
        if len(text) > ROW_LIMIT_BYTES:
            refuse_large_row(size_of(row), f"{path}: item {number}")
    return value


def _read_csv(path: Path) -> list[Row]:
    before = csv.field_size_limit(ROW_LIMIT_BYTES)
    try:
        records = list(_csv_records(path))
    finally:
        csv.field_size_limit(before)
    if not records:
        return []
    (_, header), body = records[0], records[1:]
    if header and not header[0].strip():
        header[0] = INDEX_COLUMNS[0]
    if len(set(header)) != len(header) or not all(name.strip() for name in header):
        raise DataError(f"{path}:1: every column needs a unique name; found {header}")
    if not body:
        raise DataError(f"{path}: has a header but no rows")
    for line, values in body:
        if len(values) != len(header):
            raise DataError(
                f"{path}:{line}: {len(values)} values for {len(header)} columns ({', '.join(header)}); "
                "put values with commas or line breaks in double quotes"
            )
    return [dict(zip(header, values, strict=True)) for _, values in body]


def _csv_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield each record that is not blank with the line where it begins."""
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    line = 1
    try:
        for values in reader:
            if values:
                _refuse_large("".join(values), f"{path}:{line}")
                yield line, values
            line = reader.line_num + 1
    except csv.Error as error:
        if "field larger" in str(error):
            refuse_large_row(ROW_LIMIT_BYTES + 1, f"{path}:{line}")
        raise DataError(f"{path}:{line}: the record that begins here is not valid CSV: {error}") from error


def _read_parquet(path: Path) -> list[Row]:
    """Read a file in small batches, because a few kilobytes can unpack to terabytes."""
    import pyarrow as pa  # takes a tenth of a second, and most data are not Parquet
    import pyarrow.parquet as pq

    if path.stat().st_size == 0:
        raise DataError(f"{path}: is empty")
    try:
        with pq.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow.names)
            groups = (file.metadata.row_group(index) for index in range(file.metadata.num_row_groups))
            refuse_large_file(sum(group.total_byte_size for group in groups), path, "unpacks to more than")
            return list(_parquet_rows(path, file))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is not a complete Parquet file: {error}. Write or copy it again") from error


def _check_columns(path: Path, names: list[str]) -> None:
    if len(set(names)) != len(names) or not all(name.strip() for name in names):
        raise DataError(f"{path}: every column needs a unique name; found {names[:20]}")


def _parquet_rows(path: Path, file: pq.ParquetFile) -> Iterator[Row]:
    unpacked = number = 0
    for batch in file.iter_batches(batch_size=_BATCH_ROWS):
        for row in _python_values(path, batch, number):
            number += 1
            size = size_of(row)
            refuse_large_row(size, f"{path}: row {number}")
            unpacked += size
            refuse_large_file(unpacked, path, "unpacks to more than")
            yield row


def _python_values(path: Path, batch: pa.RecordBatch, before: int) -> list[Row]:
    import pyarrow as pa

    try:
        rows: list[Row] = batch.to_pylist()
    except (OverflowError, ValueError) as error:
        if isinstance(error, pa.ArrowException | UnicodeDecodeError):
            raise
        raise DataError(
            f"{path}: rows {before + 1} to {before + batch.num_rows}: hold a date or a time that is out of range "
            f"({error}); leave that column out"
        ) from error
    return rows


READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
"""Readers by file suffix."""


def _text(path: Path) -> str:
    """Return the file as text; UTF-8, with or without a byte order mark."""
    refuse_large_file(path.stat().st_size, path)
    content = path.read_bytes()
    if not content.strip():
        raise DataError(f"{path}: is empty")
    for magic, name in _COMPRESSED.items():
        if content.startswith(magic):
            raise DataError(f"{path}: is compressed ({name}); unpack it first")
    for mark, name in _ENCODINGS.items():
        if content.startswith(mark):
            raise DataError(f"{path}: is {name}; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: is not UTF-8 (byte {content[error.start]:#04x}); save it as UTF-8") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{path}:{line}: holds a NUL byte, which no text has; is this a binary file?")
    return text


def _parse(text: str, path: Path, first_line: int = 1) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{path}:{first_line + error.lineno - 1}"
        raise DataError(f"{place}: is not valid JSON: {error.msg} (column {error.colno})") from error
    except RecursionError as error:
        raise DataError(f"{path}:{first_line}: is nested too deeply") from error
    except ValueError as error:  # an integer of more digits than Python converts
        raise DataError(f"{path}:{first_line}: is not usable JSON: {error}") from error


def _refuse_large(text: str, place: str) -> None:
    refuse_large_row(len(text.encode("utf-8", "surrogatepass")), place)


def _name(value: Any) -> str:
    """Return what a JSON value is, in words."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
