"""The prepared rows: their shape in TRL's terms, and the same rows as other tools need them.

TRL applies the chat template, the tokenizer's first token and the end token while it tokenises. Where it would make
other tokens than the study trained on, it gets those tokens. Other tools have templates and rules of their own, so they
get the finished text: the same tokens then carry the loss in all of them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sweeper.config.technique import SFT
from sweeper.data.as_trained import learned
from sweeper.data.rendering import Answer, Rendering, is_conversation, render
from sweeper.data.tokenizer import ModelTokenizer
from sweeper.errors import ExportError
from sweeper.export.source import ExportSource, SplitSource
from sweeper.files.checksums import sha256_of

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
    """Return the row for TRL: where answers alone are learned, the last turn of a conversation is a completion."""
    if "messages" in row and has_completions(source):
        rest = {name: value for name, value in row.items() if name != "messages"}
        return {"prompt": row["messages"][:-1], "completion": row["messages"][-1:], **rest}
    return row


def has_completions(source: ExportSource) -> bool:
    """Return whether prompts and completions were trained on, rather than whole texts."""
    technique = source.spec.technique
    completions = isinstance(technique, SFT) and technique.completion_only
    shape = shape_of(source.train.path)
    return shape.startswith("prompt_completion") or (shape == "messages" and completions)


def in_tokens(source: ExportSource) -> bool:
    """Return whether TRL would make other tokens of a row than those that were trained on.

    Raises:
        ExportError: If a split changed since the study prepared it.
    """
    for _, split in splits(source):
        check_unchanged(split)
    renderer = Renderer(source)
    return not all(renderer.is_plain(row) for _, split in splits(source) for row in read_rows(split.path))


def copy_splits(source: ExportSource, folder: Path, convert: Callable[[Row], Row] | None = None) -> None:
    """Copy ``train.jsonl`` and ``validation.jsonl`` to ``folder``, unchanged or with each row as trained and converted.

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
    found = sha256_of(split.path)
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


@dataclass(frozen=True)
class Segment:
    """A part of a row as text, and whether it carries a loss."""

    text: str
    learned: bool


class Renderer:
    """Renders prepared rows of any shape as finished text, as they were trained."""

    def __init__(self, source: ExportSource, tokenizer: Any = None) -> None:
        self._tokenizer = ModelTokenizer.of(tokenizer or load_tokenizer(source))
        self._technique = source.spec.technique

    def __call__(self, row: Row) -> list[Segment]:
        """Return the parts of a row: of a pair with the better answer, of a bare prompt the prompt alone."""
        rendering = self._rendering(row)
        first = "" if is_conversation(row) else self._tokenizer.first
        cuts, done = [], 0
        for answer in rendering.answers:
            if self._is_learned(rendering, answer):
                start, end = (_end_of(rendering, place) for place in (answer.start, answer.end))
                cuts += [Segment(rendering.text[done:start], False), Segment(rendering.text[start:end], True)]
                done = end
        cuts.append(Segment(rendering.text[done:], False))
        head, *rest = cuts
        return [part for part in (replace(head, text=first + head.text), *rest) if part.text]

    def tokens(self, row: Row) -> Row:
        """Return a row of SFT in tokens with their labels, as TRL takes them."""
        assert isinstance(self._technique, SFT)
        rendering = self._rendering(row)
        losses = learned(rendering, self._technique, completions="text" not in row)
        labels = [number if loss else -100 for number, loss in zip(rendering.ids, losses, strict=True)]
        return {"input_ids": rendering.ids, "labels": labels}

    def is_plain(self, row: Row) -> bool:
        """Return whether TRL would make the same tokens and labels of a row."""
        if not is_conversation(row):
            return not self._tokenizer.begins_twice(row["text"] if "text" in row else row["prompt"])
        answers = [answer for answer in self._rendering(row).answers if answer.learned]
        one = len(answers) == 1 or (isinstance(self._technique, SFT) and self._technique.turns == "last")
        return self._tokenizer.end_of_turn is not None and one

    def _rendering(self, row: Row) -> Rendering:
        return render([row], self._tokenizer, "chosen" if "chosen" in row else "completion")[0]

    def _is_learned(self, row: Rendering, answer: Answer) -> bool:
        last_only = isinstance(self._technique, SFT) and self._technique.turns == "last"
        return answer.learned and (answer is row.answers[-1] or not last_only)


def _end_of(row: Rendering, place: int) -> int:
    """Return the character after the tokens before ``place``."""
    return max((end for _, end in row.encoding.offsets[:place]), default=0)


def load_tokenizer(source: ExportSource) -> Any:
    """Return the base model's tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(source.base.folder, trust_remote_code=source.spec.model.trust_remote_code)
