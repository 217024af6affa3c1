"""Prompts in the shape that a version was trained on: plain text, an instruction, or a conversation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from sweeper.data.formats import is_chat, kind_of
from sweeper.data.layouts import ALPACA
from sweeper.errors import DataError
from sweeper.playground.protocol import Turn

Shape = Literal["text", "alpaca", "chat"]

_ALPACA_HEAD = ALPACA.partition("{")[0]
_HEADS = (_ALPACA_HEAD, "Below is an instruction that describes a task, paired with an input")


def trained_shape(train: Path) -> Shape:
    """Return the shape of a version's training prompts, from the first row; DataError if that cannot be read."""
    try:
        with train.open(encoding="utf-8") as file:
            row = json.loads(file.readline())
    except (OSError, ValueError) as error:
        raise DataError(f"{train} is gone or damaged, so the shape of this version's prompts is unknown") from error
    if is_chat(kind_of(row)):
        return "chat"
    return "alpaca" if str(row.get("prompt", "")).startswith(_HEADS) else "text"


def shaped(turns: Sequence[Turn], shape: Shape) -> tuple[str | list[dict[str, Any]], str]:
    """Return a prompt in a shape, and a note about that, which may be empty."""
    if shape == "chat":
        return [turn.model_dump() for turn in turns], ""
    text = turns[-1].content
    note = "trained on plain text: it gets only the prompt, no earlier turns" if len(turns) > 1 else ""
    if shape == "alpaca" and not text.startswith(_HEADS):
        return ALPACA.format(
            instruction=text
        ), note or "the prompt is put into the instruction that it was trained with"
    return text, note
