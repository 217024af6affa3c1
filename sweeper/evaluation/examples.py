"""Prepared rows as evaluation reads them: a prompt and its right answer, both as they were trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweeper.data.rendering import Rendering, Row, answer_text, render
from sweeper.data.tokenizer import ModelTokenizer
from sweeper.errors import DataError


@dataclass(frozen=True)
class PromptExample:
    """A prompt and how it is answered.

    Attributes:
        prompt: Text, or the turns before the assistant's last one; empty for a row of plain text, which is all
            completion.
        reference: The right answer as the chat template renders it, without the white space at its ends.
        rendering: The whole row in tokens; None for a prompt without an answer.
        has_prompt: Whether an answer can be generated.
    """

    prompt: str | tuple[Mapping[str, Any], ...]
    reference: str
    rendering: Rendering | None = field(default=None, repr=False)
    has_prompt: bool = True

    @property
    def shown_prompt(self) -> str:
        """The prompt as a person reads it: the text of a single turn, else one paragraph a turn."""
        if isinstance(self.prompt, str):
            return self.prompt
        if len(self.prompt) == 1:
            return str(self.prompt[0].get("content", ""))
        return "\n".join(f"{turn.get('role')}: {turn.get('content', '')}" for turn in self.prompt)


def read_examples(rows: Sequence[Row], tokenizer: Any, *, reasoning: bool = False) -> list[PromptExample]:
    """Return prepared rows as examples.

    ``prompt`` and ``completion`` are texts or lists of messages; the last turn of ``messages`` is the answer; ``text``
    has no prompt.

    Args:
        rows: The prepared rows.
        tokenizer: The base model's, as transformers loaded it.
        reasoning: Whether the reasoning before an answer belongs to its reference.

    Raises:
        DataError: If there is no row, a row has none of these shapes (with its number, from 1), or the chat template
            refuses it.
    """
    if not rows:
        raise DataError("there is no row to score; the test split is empty")
    prompts = [_prompt(row, number) for number, row in enumerate(rows, start=1)]
    own = ModelTokenizer.of(tokenizer)
    return [
        PromptExample(
            prompt, answer_text(rendering.answer, own, reasoning=reasoning), rendering, has_prompt="text" not in row
        )
        for row, prompt, rendering in zip(rows, prompts, render(rows, own), strict=True)
    ]


def _prompt(row: Row, number: int) -> str | tuple[Mapping[str, Any], ...]:
    if "messages" in row:
        return _turns_before_answer(row["messages"], number)
    if "text" in row:
        _require_text(row["text"], "text", number)
        return ""
    prompt, completion = row.get("prompt"), row.get("completion")
    if isinstance(prompt, str):
        _require_text(completion, "completion", number)
        return prompt
    if isinstance(prompt, list | tuple) and isinstance(completion, list | tuple):
        return _turns_before_answer([*prompt, *completion], number)
    raise DataError(
        f"row {number}: a row to score has prompt and completion (both text or both messages), messages, or text; "
        f"found {', '.join(sorted(row)) or 'nothing'}"
    )


def _require_text(value: Any, column: str, number: int) -> None:
    if not isinstance(value, str):
        raise DataError(f"row {number}: {column} must be text; found {type(value).__name__}")


def _turns_before_answer(messages: Any, number: int) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(messages, list | tuple) or len(messages) < 2:
        raise DataError(f"row {number}: a conversation to score needs at least two turns, the last the assistant's")
    *before, answer = messages
    if answer.get("role") != "assistant" or not isinstance(answer.get("content"), str):
        raise DataError(
            f"row {number}: the last turn must be the assistant's, with text as its content; "
            f"found role {answer.get('role')!r}"
        )
    return tuple(before)
