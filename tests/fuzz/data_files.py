"""Fuzzes the data readers: JSONL, JSON, CSV and Parquet to rows, and rows to what each technique learns from.

    python tests/fuzz/data_files.py --seconds 600

Whatever a file holds, it is rows that are written and read back as they were, or a ``UserError`` that names the file.
"""

from __future__ import annotations

import csv
import io
import json
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, get_args

sys.path.insert(0, str(Path(__file__).parent))

from fuzzing import Target, main
from reshaping import reshaped

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
WORDS = (
    "text", "messages", "conversations", "role", "content", "from", "value", "prompt", "completion", "instruction",
    "input", "output", "chosen", "rejected", "label", "margin", "reference", "system", "user", "assistant", "human",
    "gpt", "tool", "true", "false", "null", "NaN", "-Infinity", "1e999", '"', '""', ",", "\n", "\r\n", "\r", "{", "}",
    "[", "]", ":", "\\ud800", "\\u0000", "\ufeff", "\u2028", "\x85", "\0", "PAR1", "<|im_end|>", "9" * 400, "9" * 5000,
)  # fmt: skip


def check(data: bytes) -> None:
    """Read a data file of these bytes; the first one says of which kind it is."""
    from sweeper.config.technique import Rows
    from sweeper.data.formats import convert
    from sweeper.data.read import read_rows
    from sweeper.data.splits import read_prepared, write_splits
    from sweeper.errors import UserError

    path = scratch() / f"train{SUFFIXES[data[0] % len(SUFFIXES) if data else 0]}"
    path.write_bytes(data[1:])
    try:
        rows = read_rows(path.name, path.parent)
    except UserError as error:
        assert path.name in str(error), f"the message does not name the file: {error}"
        assert len(str(error)) < 20_000, "the message is longer than anybody reads"
        return
    assert rows and all(isinstance(row, dict) for row in rows)
    for learns in get_args(Rows):
        splits = _splits(rows, path.name, learns)
        if splits is not None:
            prepared = write_splits(splits, scratch() / "prepared")
            assert read_prepared(prepared.train) == list(splits.train), "rows are not read back as they were"
    assert convert([{"text": "a"}], _config(), "x")  # whatever was read before


def _splits(rows: Sequence[dict[str, Any]], name: str, learns: Any) -> Any:
    """Return the rows as all three splits, or None where the technique cannot learn from them."""
    from sweeper.data.formats import convert
    from sweeper.data.splits import Splits, _notes
    from sweeper.errors import UserError

    try:
        found = tuple(convert(rows, _config(), name, learns))
    except UserError as error:
        assert len(str(error)) < 20_000, "the message is longer than anybody reads"
        return None
    parts = {"train": found, "validation": found, "test": found}
    return Splits(**parts, notes=tuple(_notes(parts)))


@cache
def _config() -> Any:
    from sweeper.config.data import DataConfig

    return DataConfig(train=("train",))


@cache
def scratch() -> Path:
    """Return a folder for the file, in memory where there is one."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="sweeper-fuzz-", dir=memory if memory.is_dir() else None))


def reshape(data: bytes, rng: Random, words: Sequence[str]) -> bytes:
    """Return a file of the same kind, or of another, whose rows say something else in a few places."""
    kind = data[0] % len(SUFFIXES) if data else 0
    try:
        rows = _rows(SUFFIXES[kind], data[1:])
    except Exception:  # it is broken: so anything may follow
        rows = [{"prompt": "a", "completion": "b"}]
    changed = reshaped(rows, rng, words)
    kind = kind if rng.random() < 0.8 else rng.randrange(len(SUFFIXES))
    try:
        return bytes([kind]) + _written(SUFFIXES[kind], changed, rng)
    except Exception:  # such rows cannot be in a file of that kind
        return bytes([1]) + json.dumps(changed, default=str).encode()


def _rows(suffix: str, content: bytes) -> Any:
    import pyarrow.parquet as pq

    if suffix == ".parquet":
        return pq.read_table(io.BytesIO(content)).to_pylist()
    text = content.decode("utf-8-sig")
    if suffix == ".csv":
        return list(csv.reader(io.StringIO(text, newline="")))
    return json.loads(text) if suffix == ".json" else [json.loads(line) for line in text.split("\n") if line.strip()]


def _written(suffix: str, rows: Any, rng: Random) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if suffix == ".parquet":
        buffer = io.BytesIO()
        compression = rng.choice(("none", "snappy", "gzip", "zstd"))
        pq.write_table(pa.Table.from_pylist(rows), buffer, compression=compression, use_dictionary=rng.random() < 0.5)
        return buffer.getvalue()
    if suffix == ".csv":
        text = io.StringIO(newline="")
        listed = [list(rows[0]), *(row.values() for row in rows)] if isinstance(rows[0], dict) else rows
        csv.writer(text, quoting=rng.choice((csv.QUOTE_ALL, csv.QUOTE_MINIMAL))).writerows(listed)
        return text.getvalue().encode("utf-8", "surrogatepass")
    plain = rng.random() < 0.5
    if suffix == ".json":
        return json.dumps(rows, ensure_ascii=plain, default=str).encode("utf-8", "surrogatepass")
    lines = (json.dumps(row, ensure_ascii=plain, default=str) for row in rows)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


TARGET = Target(
    name="data",
    check=check,
    encode=lambda path: bytes([SUFFIXES.index(path.suffix)]) + path.read_bytes(),
    decode=lambda data: (SUFFIXES[data[0] % len(SUFFIXES) if data else 0], data[1:]),
    words=lambda: WORDS,
    reshape=reshape,
    modules=("sweeper.data",),
)

if __name__ == "__main__":
    sys.exit(main(TARGET, Path(__file__)))
