"""Token counts without torch, as TRL would count them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeper.data.formats import is_chat, kind_of, texts_of
from sweeper.data.tokenizer import ModelTokenizer
from sweeper.errors import DataError


class TokenCounter:
    """Counts the tokens of converted rows as TRL's ``SFTTrainer`` does before it cuts them.

    Texts get the special tokens that the tokenizer adds and the end-of-sequence token that TRL appends; chats go
    through the model's chat template, or are joined where there is none.
    """

    def __init__(self, model_folder: Path) -> None:
        """Load the tokenizer of a model folder; see ``ModelTokenizer`` for what it raises."""
        self._tokenizer = ModelTokenizer(model_folder)

    @property
    def has_chat_template(self) -> bool:
        """Whether the model folder has a chat template."""
        return self._tokenizer.template_source is not None

    def lengths(self, rows: Sequence[Mapping[str, Any]]) -> list[int]:
        """Return the number of tokens of each row, prompt and completion; of a pair, with the longer answer.

        Raises:
            DataError: If the chat template refuses a row; names the row, from 1.
        """
        texts = [self._whole(row, number) for number, row in enumerate(rows, 1)]
        return self._count(texts, rows)

    def prompt_lengths(self, rows: Sequence[Mapping[str, Any]]) -> list[int]:
        """Return the number of tokens of each row's prompt; 0 for rows without one."""
        texts = [self._prompt(row, number) for number, row in enumerate(rows, 1)]
        counts = self._count(texts, rows)
        return [count if text else 0 for count, text in zip(counts, texts, strict=True)]

    def special_tokens_in(self, rows: Sequence[Mapping[str, Any]]) -> list[int]:
        """Return the indices of rows whose text contains a special token of the tokenizer, such as ``<|im_end|>``."""
        special = self._tokenizer.special_tokens()
        return [i for i, row in enumerate(rows) if any(token in text for text in texts_of(row) for token in special)]

    def _count(self, texts: list[str], rows: Sequence[Mapping[str, Any]]) -> list[int]:
        # A chat template writes the special tokens itself, so they are not added a second time.
        chat = bool(rows) and is_chat(kind_of(rows[0])) and self.has_chat_template
        return [
            len(encoding.ids)
            for encoding in self._tokenizer.tokenizer.encode_batch_fast(texts, add_special_tokens=not chat)
        ]

    def _whole(self, row: Mapping[str, Any], number: int) -> str:
        if "text" in row:
            return self._tokenizer.ended(row["text"])
        if "messages" in row:
            return self._render(row["messages"], number, ask=False)
        answers = [row[name] for name in ("completion", "chosen", "rejected") if name in row]
        if not answers:
            return self._prompt(row, number)
        if isinstance(row["prompt"], str):
            return str(row["prompt"]) + self._tokenizer.ended(max(answers, key=len))
        longest = max(answers, key=lambda turns: sum(len(turn["content"]) for turn in turns))
        return self._render([*row["prompt"], *longest], number, ask=False)

    def _prompt(self, row: Mapping[str, Any], number: int) -> str:
        prompt: str | list[dict[str, str]] = row.get("prompt", "")
        return prompt if isinstance(prompt, str) else self._render(prompt, number, ask=True)

    def _render(self, messages: Sequence[Mapping[str, str]], number: int, ask: bool) -> str:
        try:
            return self._tokenizer.render(messages, ask=ask)
        except DataError as error:
            raise DataError(f"row {number}: {error}") from error
