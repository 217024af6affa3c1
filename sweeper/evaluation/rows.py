"""Prepared rows as evaluation sees them: a prompt, and the answer that is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeper.errors import DataError


@dataclass(frozen=True)
class TextExample:
    """Text to go on from, and how it goes on.

    Attributes:
        prompt: Empty for a row of plain text, which is all completion.
        completion: As it stands in the row.
        has_prompt: Whether an answer can be generated.
    """

    prompt: str
    completion: str
    has_prompt: bool = True

    @property
    def reference(self) -> str:
        """The right answer."""
        return self.completion.strip()

    @property
    def shown_prompt(self) -> str:
        """The prompt as a person reads it."""
        return self.prompt


@dataclass(frozen=True)
class ChatExample:
    """The turns before the last one, and the last one, which is the assistant's."""

    prompt: tuple[Mapping[str, Any], ...]
    answer: Mapping[str, Any]
    has_prompt: bool = True

    @property
    def reference(self) -> str:
        """The right answer."""
        return str(self.answer["content"]).strip()

    @property
    def shown_prompt(self) -> str:
        """The prompt as a person reads it: the text of a single turn, else one paragraph a turn."""
        if len(self.prompt) == 1:
            return str(self.prompt[0].get("content", ""))
        return "\n".join(f"{turn.get('role')}: {turn.get('content', '')}" for turn in self.prompt)


Example = TextExample | ChatExample


def read_examples(rows: Sequence[Mapping[str, Any]]) -> list[Example]:
    """Return prepared rows as examples.

    ``prompt`` and ``completion`` are texts or lists of messages; of ``messages`` the last turn is the answer; ``text``
    has no prompt.

    Raises:
        DataError: If there is no row, or a row has none of these shapes (with its number, from 1).
    """
    if not rows:
        raise DataError("there is no row to score; the test split is empty")
    return [_example(row, number) for number, row in enumerate(rows, start=1)]


def _example(row: Mapping[str, Any], number: int) -> Example:
    if "messages" in row:
        return _chat(row["messages"], number)
    if "text" in row:
        return TextExample("", _text(row["text"], "text", number), has_prompt=False)
    prompt, completion = row.get("prompt"), row.get("completion")
    if isinstance(prompt, str):
        return TextExample(prompt, _text(completion, "completion", number))
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


def _chat(messages: Any, number: int) -> ChatExample:
    if not isinstance(messages, list | tuple) or len(messages) < 2:
        raise DataError(f"row {number}: a conversation to score needs at least two turns, the last the assistant's")
    *before, answer = messages
    if answer.get("role") != "assistant" or not isinstance(answer.get("content"), str):
        raise DataError(
            f"row {number}: the last turn must be the assistant's, with text as its content; "
            f"found role {answer.get('role')!r}"
        )
    return ChatExample(tuple(before), answer)
