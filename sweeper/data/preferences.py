"""Rows without a right answer: two answers to choose between, an answer called good or bad, or a prompt alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from sweeper.data.fields import chat, check_turns, described, text

Row = dict[str, Any]


def build_pair(fields: Mapping[str, Any]) -> Row:
    """Return ``prompt``, ``chosen``, ``rejected`` and perhaps ``margin``, all texts or all chats.

    A prompt that is not written out is what both answers begin with.

    Raises:
        ValueError: If the two are the same, or not of one kind.
    """
    answers = [_value(fields[name], name) for name in ("chosen", "rejected")]
    if isinstance(answers[0], str) != isinstance(answers[1], str):
        raise ValueError("'chosen' and 'rejected' must both be text or both be lists of messages")
    if answers[0] == answers[1]:
        raise ValueError("'chosen' and 'rejected' are the same, so there is nothing to prefer")
    if fields.get("prompt") is None:
        row = _without_common(*answers)
    else:
        row = {"prompt": _value(fields["prompt"], "prompt"), "chosen": answers[0], "rejected": answers[1]}
    _check_conversations(row, ("chosen", "rejected"))
    if fields.get("margin") is not None:
        row["margin"] = _number(fields["margin"], "margin")
    return row


def build_labelled(fields: Mapping[str, Any]) -> Row:
    """Return ``prompt``, ``completion`` and ``label``.

    Raises:
        ValueError: If the label is not true or false.
    """
    given = fields["label"]
    label = None if isinstance(given, list | dict) else _LABELS.get(str(given).strip().lower())
    if label is None:
        raise ValueError(f"'label' must be true or false; found {described(fields['label'])}")
    row = {name: _value(fields[name], name) for name in ("prompt", "completion")}
    _check_conversations(row, ("completion",))
    return {**row, "label": label}


def build_prompt(fields: Mapping[str, Any]) -> Row:
    """Return ``prompt`` and, where the row has one, ``reference``."""
    row: Row = {"prompt": _value(fields["prompt"], "prompt")}
    if isinstance(row["prompt"], list) and row["prompt"][-1]["role"] != "user":
        raise ValueError(f"'prompt' must end with the user's turn; found {row['prompt'][-1]['role']!r}")
    if fields.get("reference") is not None:
        given = fields["reference"]
        row["reference"] = text(given if isinstance(given, list | dict) else str(given), "reference")
    return row


def as_labelled(row: Row) -> list[Row]:
    """Return a labelled answer as it is, and of a pair both answers, the better one labelled true."""
    if "label" in row:
        return [row]
    return [{"prompt": row["prompt"], "completion": row[name], "label": name == "chosen"} for name in _PAIR]


def as_prompt(row: Row) -> list[Row]:
    """Return a row's prompt; a right answer becomes its reference, and what people ranked is left out."""
    if "messages" in row:
        row = {"prompt": row["messages"][:-1], "completion": row["messages"][-1:]}
    prompt = {"prompt": row["prompt"]}
    if "reference" in row:
        return [{**prompt, "reference": row["reference"]}]
    if "completion" not in row:
        return [prompt]
    completion = row["completion"]
    return [{**prompt, "reference": completion if isinstance(completion, str) else completion[-1]["content"]}]


_PAIR = ("chosen", "rejected")
_LABELS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


def _value(value: Any, name: str) -> str | list[dict[str, str]]:
    return chat(value, name) if isinstance(value, list) else text(value, name)


def _without_common(chosen: Any, rejected: Any) -> Row:
    """Part two answers from what both begin with: whole turns, or text up to the last space, which the answer keeps."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False))
    length = sum(1 for _ in same)
    if isinstance(chosen, str):
        length = max(0, chosen.rfind(" ", 0, length))
    if not 0 < length < min(len(chosen), len(rejected)):
        raise ValueError("there is no 'prompt', and 'chosen' and 'rejected' do not begin alike; name the prompt")
    return {"prompt": chosen[:length], "chosen": chosen[length:], "rejected": rejected[length:]}


def _check_conversations(row: Row, names: Sequence[str]) -> None:
    kinds = {isinstance(row[name], str) for name in ("prompt", *names)}
    if len(kinds) > 1:
        raise ValueError(f"'prompt' and {' and '.join(map(repr, names))} must all be text or all be lists of messages")
    if isinstance(row["prompt"], list):
        for name in names:
            check_turns([*row["prompt"], *row[name]], f"prompt and {name}")


def _number(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):  # of more digits than any real number has
        raise ValueError(f"{name!r} must be a number; found {described(value)}") from None
    if not math.isfinite(number):
        raise ValueError(f"{name!r} must be a finite number; found {number}")
    return number
