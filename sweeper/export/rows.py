"""The prepared rows: their shape in TRL's terms, and the same rows as other tools need them.

TRL applies the chat template, the tokenizer's first token and the end token while it tokenises. Other tools have
templates and rules of their own, so they get the finished text: the same tokens then carry the loss in all of them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sweeper.config.technique import SFT
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
    """Return the row as trained: if only completions are learned, the last turn of a conversation is one."""
    if "messages" in row and _last_turn_only(source):
        return {"prompt": row["messages"][:-1], "completion": row["messages"][-1:]}
    return row


def has_completions(source: ExportSource) -> bool:
    """Return whether prompts and completions were trained on, rather than whole texts."""
    shape = shape_of(source.train.path)
    return shape.startswith("prompt_completion") or (shape == "messages" and _last_turn_only(source))


def _last_turn_only(source: ExportSource) -> bool:
    technique = source.spec.technique
    return isinstance(technique, SFT) and technique.completion_only and not technique.assistant_only


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
class Rendered:
    """One row as text: ``prompt`` is masked, ``completion`` carries the loss and ends with the end token."""

    prompt: str
    completion: str


class Renderer:
    """Renders prepared rows of any shape as finished text, with the base model's tokenizer and template."""

    def __init__(self, source: ExportSource, tokenizer: Any = None) -> None:
        self._tokenizer = tokenizer or load_tokenizer(source)
        self._begin = _begin_token(self._tokenizer)
        self._end: str = self._tokenizer.eos_token or ""

    def __call__(self, row: Row) -> Rendered:
        """Return the row as TRL 1.16 tokenises it: of a pair the better answer, of a bare prompt the prompt alone."""
        if "messages" in row:
            return Rendered("", self._chat(row["messages"], begin_answer=False))
        if "text" in row:
            return Rendered("", self._begin + self._ended(row["text"]))
        answer = row.get("completion", row.get("chosen"))
        if isinstance(row["prompt"], str):
            prompt = self._begin + row["prompt"]
            return Rendered(prompt, "") if answer is None else self._split(prompt, prompt + self._ended(answer))
        prompt = self._chat(row["prompt"], begin_answer=True)
        if answer is None:
            return Rendered(prompt, "")
        return self._split(prompt, self._chat([*row["prompt"], *answer], begin_answer=False))

    def _split(self, prompt: str, whole: str) -> Rendered:
        """Split where TRL does: at the token where prompt and whole part, which is not always after the prompt."""
        ids = self._ids(whole)
        begin = str(self._tokenizer.decode(ids[: _shared(self._ids(prompt), ids)]))
        if not whole.startswith(begin):  # decoding does not restore the text: split the text itself
            begin = whole[: _shared(prompt, whole)]
        return Rendered(begin, whole[len(begin) :])

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _ended(self, text: str) -> str:
        return text if text.endswith(self._end) else text + self._end

    def _chat(self, turns: list[dict[str, Any]], *, begin_answer: bool) -> str:
        text = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=begin_answer)
        return str(text)


def _shared(left: Sequence[object], right: Sequence[object]) -> int:
    """Return the length of the longest common beginning."""
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def load_tokenizer(source: ExportSource) -> Any:
    """Return the base model's tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(source.base.folder, trust_remote_code=source.spec.model.trust_remote_code)


def _begin_token(tokenizer: Any) -> str:
    """Return the token that the tokenizer puts before plain text, or nothing."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    first = tokenizer("a")["input_ids"][:1]
    return "" if first == plain[:1] else str(tokenizer.decode(first))
