"""Prepared rows as evaluation reads them: a prompt and its right answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeper.errors import DataError

Row = Mapping[str, Any]
"""A prepared row, as ``data.splits`` writes it."""


@dataclass(frozen=True)
class PromptExample:
    """A prompt and how it is answered.

    Attributes:
        prompt: Text, or the turns before the assistant's last one; empty for a row of plain text, which is all
            completion.
        completion: The right answer as it stands in the row: text, or the content of the assistant's turn.
        has_prompt: Whether an answer can be generated.
    """

    prompt: str | tuple[Mapping[str, Any], ...]
    completion: str
    has_prompt: bool = True

    @property
    def reference(self) -> str:
        """The right answer without the white space at its ends."""
        return self.completion.strip()

    @property
    def shown_prompt(self) -> str:
        """The prompt as a person reads it: the text of a single turn, else one paragraph a turn."""
        if isinstance(self.prompt, str):
            return self.prompt
        if len(self.prompt) == 1:
            return str(self.prompt[0].get("content", ""))
        return "\n".join(f"{turn.get('role')}: {turn.get('content', '')}" for turn in self.prompt)


def read_examples(rows: Sequence[Row]) -> list[PromptExample]:
    """Return prepared rows as examples.

    ``prompt`` and ``completion`` are texts or lists of messages; the last turn of ``messages`` is the answer; ``text``
    has no prompt.

    Raises:
        DataError: If there is no row, or a row has none of these shapes (with its number, from 1).
    """
    if not rows:
        raise DataError("there is no row to score; the test split is empty")
    return [_example(row, number) for number, row in enumerate(rows, start=1)]


def _example(row: Row, number: int) -> PromptExample:
    if "messages" in row:
        return _chat(row["messages"], number)
    if "text" in row:
        return PromptExample("", _text(row["text"], "text", number), has_prompt=False)
    prompt, completion = row.get("prompt"), row.get("completion")
    if isinstance(prompt, str):
        return PromptExample(prompt, _text(completion, "completion", number))
    if isinstance(prompt, list | tuple) and isinstance(completion, list | tuple):
        return _chat([*prompt, *completion], number)
    raise DataError(
        f"row {number}: a row to score has prompt and completion (both text or both messages), messages, or text; "
        f"found {', '.join(sorted(row)) or 'nothing'}"
    )


def _text(value: Any, column: str, number: int) -> str:
    if not isinstance(value, str):
        raise DataError(f"row {number}: {column} must be text; found {type(value).__name__}")
    return value


def _chat(messages: Any, number: int) -> PromptExample:
    if not isinstance(messages, list | tuple) or len(messages) < 2:
        raise DataError(f"row {number}: a conversation to score needs at least two turns, the last the assistant's")
    *before, answer = messages
    if answer.get("role") != "assistant" or not isinstance(answer.get("content"), str):
        raise DataError(
            f"row {number}: the last turn must be the assistant's, with text as its content; "
            f"found role {answer.get('role')!r}"
        )
    return PromptExample(tuple(before), answer["content"])
