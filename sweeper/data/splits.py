"""The three splits of a study: read, converted, divided by content hash, limited, and stored as JSONL."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from sweeper.config.data import DataConfig
from sweeper.config.technique import Rows
from sweeper.data.files import Row, read_file
from sweeper.data.formats import RowKind, convert_source, kind_of
from sweeper.data.read import read_rows
from sweeper.errors import DataError
from sweeper.files.atomic import write_atomically

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Splits:
    """Converted rows by split.

    Attributes:
        notes: Duplicates, rows and prompts shared between splits, prompts that touch completions, skipped rows.
        unused: Columns and keys of messages that nothing is learned from.
    """

    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    test: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    @property
    def kind(self) -> RowKind:
        """The kind of the rows, the same in all splits."""
        return kind_of(self.train[0])


@dataclass(frozen=True)
class PreparedData:
    """Splits as JSONL files, with the SHA-256 of each by split name."""

    train: Path
    validation: Path
    test: Path
    sha256: dict[str, str]


def load_splits(config: DataConfig, base: Path, learns: Rows = "answers") -> Splits:
    """Read and convert the splits of a study; those that are not named are taken from ``train``.

    A row's split depends only on the hash of its prompt, or of its value of ``data.group``, so it stays there when rows
    are added or moved, and rows of one prompt stay together. Row limits choose by a second hash, which mixes all parts
    of a file; a larger limit only adds rows. Relative paths start at ``base``.

    Raises:
        DataError: If a source cannot be read or converted, layouts differ, or a split is empty.
    """
    sources = {"train": config.train, "validation": config.validation or (), "test": config.test or ()}
    notes: list[str] = []
    unused: list[str] = []
    rows: dict[str, list[Row]] = {}
    groups: list[Any] = []
    for name, files in sources.items():
        found = [convert_source(read_rows(source, base), config, source, learns) for source in files]
        rows[name] = [row for each in found for row in each.rows]
        notes += [note for source, each in zip(files, found, strict=True) for note in each.notes(source)]
        unused += [line for source, each in zip(files, found, strict=True) for line in each.unused(source)]
        groups = groups or [group for each in found for group in each.groups]
    _refuse_mixed_kinds(rows)
    _cut(rows, groups, config)
    limits = {"train": config.train_rows, "validation": config.validation_rows, "test": config.test_rows}
    limited = {name: tuple(_limit(rows[name], limits[name])) for name in SPLITS}
    return Splits(**limited, notes=(*notes, *_notes(limited)), unused=tuple(unused))


def write_splits(splits: Splits, folder: Path) -> PreparedData:
    """Write the splits to ``folder`` as JSONL, each file atomically."""
    paths = {name: folder / f"{name}.jsonl" for name in SPLITS}
    sha256 = {}
    for name, path in paths.items():
        text = "".join(_canonical(row) + "\n" for row in getattr(splits, name))
        write_atomically(path, text)
        sha256[name] = hashlib.sha256(text.encode()).hexdigest()
    return PreparedData(**paths, sha256=sha256)


def read_prepared(path: Path) -> list[dict[str, Any]]:
    """Read a split that ``write_splits`` wrote; DataError if the file is missing or broken."""
    return read_file(path)


def _refuse_mixed_kinds(rows: dict[str, list[Row]]) -> None:
    kinds = {(name, kind_of(row)) for name, split in rows.items() for row in split}
    if len({kind for _, kind in kinds}) > 1:
        found = ", ".join(f"{name} is {kind}" for name, kind in sorted(kinds))
        raise DataError(f"data: all files must have the same layout; {found}")


def _cut(rows: dict[str, list[Row]], groups: Sequence[Any], config: DataConfig) -> None:
    """Move rows from train to the splits that are not named: test from the low hashes, validation from the high ones.

    So changing one fraction leaves the other split unchanged.
    """
    low = 0.0 if config.test else config.test_fraction
    high = 1.0 if config.validation else 1.0 - config.validation_fraction
    whole, rows["train"] = rows["train"], []
    places = [_position(prompt_of(row) if group is None else group) for row, group in zip(whole, groups, strict=True)]
    if 3 <= len(set(places)) < len(whole):  # of few groups each split gets one
        ordered = sorted(set(places))
        low, high = max(low, ordered[1]) if low else low, min(high, ordered[-1]) if high < 1 else high
    for row, position in zip(whole, places, strict=True):
        rows["test" if position < low else "validation" if position >= high else "train"].append(row)
    for name in SPLITS:
        if not rows[name]:
            raise DataError(
                f"data: the {name} split is empty: {len(whole)} rows are too few to cut it from train by hash; "
                f"add rows, or name a file for it"
                + (f", or raise data.{name}_fraction" if name != "train" else ", or lower the fractions")
            )


def _limit(rows: list[Row], most: int | None) -> list[Row]:
    """Return at most ``most`` rows, those with the lowest values of an independent hash, in file order."""
    if most is None or len(rows) <= most:
        return rows
    chosen = sorted(range(len(rows)), key=lambda index: _position(rows[index], salt=b"limit"))[:most]
    return [rows[index] for index in sorted(chosen)]


def prompt_of(row: Row) -> Any:
    """Return what a row asks: its prompt, the turns before the assistant's first, or a plain text as a whole."""
    turns: Any = row.get("messages") or row.get("prompt", row.get("text"))
    if isinstance(turns, str):
        return turns
    return [turn for turn in takewhile(lambda turn: turn["role"] != "assistant", turns) if turn["role"] != "system"]


def _canonical(row: Any) -> str:
    return json.dumps(row, ensure_ascii=False, sort_keys=True)


def _position(row: Any, salt: bytes = b"split") -> float:
    """Return a hash of a row's content, or of a part of it, in [0, 1)."""
    digest = hashlib.blake2b(_canonical(row).encode(), digest_size=8, key=salt).digest()
    return (int.from_bytes(digest) >> 11) / 2**53


def _notes(splits: dict[str, tuple[Row, ...]]) -> list[str]:
    distinct = {name: {_canonical(row) for row in rows} for name, rows in splits.items()}
    notes = []
    repeated = len(splits["train"]) - len(distinct["train"])
    if repeated:
        notes.append(f"train: {repeated:,} of {len(splits['train']):,} rows repeat an earlier row")
    for held_out, other in (("validation", "train"), ("test", "train"), ("test", "validation")):
        shared = sum(_canonical(row) in distinct[other] for row in splits[held_out])
        if shared:
            notes.append(
                f"{held_out}: {shared:,} of {len(splits[held_out]):,} rows are also in {other}; "
                "scores on them are too good"
            )
        shared_prompts = _shared_prompts(splits[held_out], splits[other]) - shared
        if shared_prompts > 0:
            notes.append(
                f"{held_out}: {shared_prompts:,} of {len(splits[held_out]):,} rows have a prompt that is also in the "
                f"{other} split, with another answer; scores on them are too good"
            )
    touching = sum(_touches(row) for row in splits["train"])
    if touching:
        notes.append(
            f"train: in {touching:,} of {len(splits['train']):,} rows the completion follows the prompt without a "
            "space or line break; they are joined without one"
        )
    return notes


def _shared_prompts(rows: Sequence[Row], others: Sequence[Row]) -> int:
    """Return the number of rows with a prompt that others have; of plain texts, which are all prompt, none."""
    asked = {_canonical(prompt_of(row)) for row in others}
    return 0 if "text" in others[0] else sum(_canonical(prompt_of(row)) in asked for row in rows)


def _touches(row: Row) -> bool:
    """Return whether a prompt and its completion run together when joined."""
    prompt, completion = row.get("prompt"), row.get("completion", row.get("chosen"))
    if not isinstance(prompt, str) or not isinstance(completion, str):
        return False
    return completion[0].isalnum() and (prompt[-1].isalnum() or prompt[-1] in ".,:;?!")
