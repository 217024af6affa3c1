"""Rows as the trainer saw them: text before the loss begins, and text the loss is taken on.

TRL applies the chat template, the tokenizer's first token and the end token while it tokenises. Other tools have
templates and rules of their own, so they get the finished text: the same tokens then carry the loss in all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sweeper.export.rows import Row
from sweeper.export.source import ExportSource


@dataclass(frozen=True)
class Rendered:
    """One row as text: ``prompt`` is masked, ``completion`` carries the loss and ends with the end token."""

    prompt: str
    completion: str


class Renderer:
    """Turns prepared rows of any shape into finished text, with the base model's own tokenizer and template."""

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
        if not whole.startswith(begin):  # a tokenizer that does not give its text back: split the text itself
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
