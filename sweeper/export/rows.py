"""The prepared rows: which of TRL's shapes they have, and the same rows as other tools want them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from sweeper.config.technique import SFT
from sweeper.errors import ExportError
from sweeper.export.source import ExportSource, SplitSource

Row = dict[str, Any]
Shape = Literal["text", "prompt_completion", "prompt_completion_chat", "messages"]
"""TRL's shapes: plain text; prompt and completion as text; both as lists of turns; one list of turns."""


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a JSONL file.

    Raises:
        ExportError: If a line is not a JSON object; names the line.
    """
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ExportError(f"{path}:{number}: not JSON ({error})") from error
            if not isinstance(row, dict):
                raise ExportError(f"{path}:{number}: expected an object, found {type(row).__name__}")
            yield row


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as JSONL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def shape_of(path: Path) -> Shape:
    """Return the shape of the rows in a prepared file, by its first row.

    Raises:
        ExportError: If the file is empty or has none of the shapes.
    """
    _check_present(path)
    row = next(read_rows(path), None)
    if row is None:
        raise ExportError(f"{path} has no rows; prepare the data again")
    if "messages" in row:
        return "messages"
    if "prompt" in row and "completion" in row:
        return "prompt_completion_chat" if isinstance(row["prompt"], list) else "prompt_completion"
    if "text" in row:
        return "text"
    raise ExportError(f"{path}: expected messages, prompt and completion, or text; found {', '.join(sorted(row))}")


def as_trained(source: ExportSource, row: Row) -> Row:
    """Return the row as the trainer took it: where only completions are learned, a conversation's last turn is one."""
    if "messages" in row and _last_turn_only(source):
        return {"prompt": row["messages"][:-1], "completion": row["messages"][-1:]}
    return row


def has_completions(source: ExportSource) -> bool:
    """Return whether the trainer saw prompts and completions, rather than text that is learned as a whole."""
    shape = shape_of(source.train.path)
    return shape.startswith("prompt_completion") or (shape == "messages" and _last_turn_only(source))


def _last_turn_only(source: ExportSource) -> bool:
    technique = source.spec.technique
    return isinstance(technique, SFT) and technique.completion_only and not technique.assistant_only


def copy_splits(source: ExportSource, folder: Path, convert: Callable[[Row], Row] | None = None) -> None:
    """Put ``train.jsonl`` and ``validation.jsonl`` into ``folder``, byte by byte or each row as trained and converted.

    Raises:
        ExportError: If a split changed since the study prepared it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, split in splits(source):
        check_unchanged(split)
        if convert is None:
            shutil.copyfile(split.path, folder / name)
        else:
            write_rows(folder / name, (convert(as_trained(source, row)) for row in read_rows(split.path)))


def splits(source: ExportSource) -> tuple[tuple[str, SplitSource], ...]:
    """Return the file name and the source of each split that training needs."""
    return (("train.jsonl", source.train), ("validation.jsonl", source.validation))


def check_unchanged(split: SplitSource) -> None:
    """Compare a prepared split with the hash taken when the study ran.

    Raises:
        ExportError: If it is missing or differs.
    """
    _check_present(split.path)
    with split.path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != split.sha256:
        raise ExportError(
            f"{split.path} is not the file the study trained on: SHA-256 is {found[:12]}..., was {split.sha256[:12]}..."
        )


def _check_present(path: Path) -> None:
    if not path.is_file():
        raise ExportError(f"the prepared data {path} is missing; run the study again, or restore the file")


def check_row_counts(source: ExportSource, folder: Path) -> None:
    """Count the rows that were written.

    Raises:
        ExportError: If a written split has more or fewer rows than its source.
    """
    for name, split in splits(source):
        found = sum(1 for _ in read_rows(folder / name))
        if found != split.rows:
            raise ExportError(f"the export does not verify: {name} has {found} rows, the study's split {split.rows}")
