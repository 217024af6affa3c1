"""One builder for each row layout: checks a row's fields and returns TRL's columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from sweeper.data.files import ROW_LIMIT_BYTES, Row

ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}
"""Known roles, ShareGPT's among them, to the role that chat templates know."""

ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
"""The prompts of Stanford Alpaca (github.com/tatsu-lab/stanford_alpaca), ending in a line break."""

_PAIR = ("chosen", "rejected")
_LABELS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}

# Every function below raises ValueError, with a message for the row's author, if a value does not fit.


def build_text(fields: Mapping[str, Any]) -> Row:
    """Return ``text``."""
    return {"text": text(fields["text"], "text")}


def build_messages(fields: Mapping[str, Any]) -> Row:
    """Return ``messages``, whatever the chat's column is called."""
    name = next(iter(fields))
    messages = chat(fields[name], name)
    _check_turns(messages, name)
    return {"messages": messages}


def build_alpaca(fields: Mapping[str, Any]) -> Row:
    """Return ``prompt``, with the instruction and perhaps its input in Alpaca's words, and ``completion``."""
    instruction = text(fields["instruction"], "instruction")
    completion = text(fields["output"], "output")
    if fields.get("input") in (None, ""):
        return {"prompt": ALPACA.format(instruction=instruction), "completion": completion}
    context = text(fields["input"], "input")
    return {"prompt": ALPACA_WITH_INPUT.format(instruction=instruction, input=context), "completion": completion}


def build_prompt_completion(fields: Mapping[str, Any]) -> Row:
    """Return ``prompt`` and ``completion``."""
    if isinstance(fields["prompt"], list) != isinstance(fields["completion"], list):
        raise ValueError("'prompt' and 'completion' must both be text or both be lists of messages")
    row = {"prompt": _prompt(fields["prompt"]), "completion": _value(fields["completion"], "completion")}
    if isinstance(row["prompt"], list):
        _check_turns([*row["prompt"], *row["completion"]], "prompt and completion")
    return row


def build_pair(fields: Mapping[str, Any]) -> Row:
    """Return ``prompt``, ``chosen``, ``rejected`` and perhaps ``margin``; without a prompt, both answers' common start.

    All are texts or all are chats; the answers differ.
    """
    chosen, rejected = (_value(fields[name], name) for name in _PAIR)
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise ValueError("'chosen' and 'rejected' must both be text or both be lists of messages")
    if chosen == rejected:
        raise ValueError("'chosen' and 'rejected' are the same, so there is nothing to prefer")
    if fields.get("prompt") is None:
        row = _without_common(chosen, rejected)
    else:
        row = {"prompt": _value(fields["prompt"], "prompt"), "chosen": chosen, "rejected": rejected}
    _check_conversations(row, _PAIR)
    if fields.get("margin") is not None:
        row["margin"] = _number(fields["margin"], "margin")
    return row


def build_labelled(fields: Mapping[str, Any]) -> Row:
    """Return ``prompt``, ``completion`` and ``label``, true or false."""
    given = fields["label"]
    label = None if isinstance(given, list | dict) else _LABELS.get(str(given).strip().lower())
    if label is None:
        raise ValueError(f"'label' must be true or false; found {_described(given)}")
    row = {name: _value(fields[name], name) for name in ("prompt", "completion")}
    _check_conversations(row, ("completion",))
    return {**row, "label": label}


def build_prompt(fields: Mapping[str, Any]) -> Row:
    """Return ``prompt`` and, if the row has one, ``reference``."""
    row: Row = {"prompt": _prompt(fields["prompt"])}
    if fields.get("reference") is not None:
        given = fields["reference"]
        row["reference"] = text(given if isinstance(given, list | dict) else str(given), "reference")
    return row


def as_labelled(row: Row) -> list[Row]:
    """Return a labelled answer unchanged; of a pair both answers, the better one labelled true."""
    if "label" in row:
        return [row]
    return [{"prompt": row["prompt"], "completion": row[name], "label": name == "chosen"} for name in _PAIR]


def as_prompt(row: Row) -> list[Row]:
    """Return a row's prompt with the right answer as its reference; a ranking is left out."""
    if "messages" in row:
        row = {"prompt": row["messages"][:-1], "completion": row["messages"][-1:]}
    prompt = {"prompt": row["prompt"]}
    if "reference" in row:
        return [{**prompt, "reference": row["reference"]}]
    if "completion" not in row:
        return [prompt]
    completion = row["completion"]
    return [{**prompt, "reference": completion if isinstance(completion, str) else completion[-1]["content"]}]


def text(value: Any, name: str) -> str:
    """Return a text that is neither empty, nor too long, nor holds what no text file can."""
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError(f"{name!r} is empty")
    if not isinstance(value, str):
        raise ValueError(f"{name!r} must be text; found {_described(value)}")
    if "\0" in value:
        raise ValueError(f"{name!r} holds a NUL character, which no text has")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"{name!r} holds half a character (a lone surrogate) at position {error.start}") from error
    if size > ROW_LIMIT_BYTES:
        raise ValueError(f"{name!r} has more than {ROW_LIMIT_BYTES:,} bytes; split the row, or leave it out")
    return value


def chat(value: Any, name: str) -> list[dict[str, str]]:
    """Return a chat as role and content, from OpenAI's keys or from ShareGPT's (``from`` and ``value``)."""
    if not isinstance(value, list) or not value:
        raise ValueError(f"{name!r} must be a list of messages with role and content; found {_described(value)}")
    messages = []
    for number, message in enumerate(value, 1):
        place = f"{name!r}, message {number}"
        if not isinstance(message, dict):
            raise ValueError(f"{place}: an object with role and content is due; found {_described(message)}")
        role = message.get("role", message.get("from"))
        if not isinstance(role, str) or role not in ROLES:
            shown = repr(role[:40]) if isinstance(role, str) else _described(role)
            raise ValueError(f"{place}: unknown role {shown}; known are {', '.join(ROLES)}")
        content = text(message.get("content", message.get("value")), f"{name}[{number}].content")
        messages.append({"role": ROLES[role], "content": content})
    return messages


def _check_turns(messages: Sequence[Mapping[str, str]], name: str) -> None:
    """Refuse turns that do not alternate, or do not end with the assistant's."""
    roles = [message["role"] for message in messages]
    for number, role in enumerate(roles, 1):
        if role == "system" and number > 1:
            raise ValueError(f"{name!r}, message {number}: 'system' may only come first")
    first = 1 if roles[0] == "system" else 0
    for index, role in enumerate(roles[first:]):
        due = ("user", "assistant")[index % 2]
        if role != due:
            raise ValueError(f"{name!r}, message {first + index + 1}: the turn of {due!r} is due; found {role!r}")
    if roles[-1] != "assistant":
        raise ValueError(f"{name!r} must end with the assistant's turn; found {roles[-1]!r}")


def _check_conversations(row: Row, names: Sequence[str]) -> None:
    kinds = {isinstance(row[name], str) for name in ("prompt", *names)}
    if len(kinds) > 1:
        raise ValueError(f"'prompt' and {' and '.join(map(repr, names))} must all be text or all be lists of messages")
    if isinstance(row["prompt"], list):
        for name in names:
            _check_turns([*row["prompt"], *row[name]], f"prompt and {name}")


def _value(value: Any, name: str) -> Any:
    return chat(value, name) if isinstance(value, list) else text(value, name)


def _prompt(value: Any) -> Any:
    prompt = _value(value, "prompt")
    if isinstance(prompt, list) and prompt[-1]["role"] != "user":
        raise ValueError(f"'prompt' must end with the user's turn; found {prompt[-1]['role']!r}")
    return prompt


def _without_common(chosen: Any, rejected: Any) -> Row:
    """Split off the common start of two answers: whole turns, or text up to the last space, which the answer keeps."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False))
    length = sum(1 for _ in same)
    if isinstance(chosen, str):
        length = max(0, chosen.rfind(" ", 0, length))
    if not 0 < length < min(len(chosen), len(rejected)):
        raise ValueError("there is no 'prompt', and 'chosen' and 'rejected' do not begin alike; name the prompt")
    return {"prompt": chosen[:length], "chosen": chosen[length:], "rejected": rejected[length:]}


def _number(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):  # of more digits than any real number has
        raise ValueError(f"{name!r} must be a number; found {_described(value)}") from None
    if not math.isfinite(number):
        raise ValueError(f"{name!r} must be a finite number; found {number}")
    return number


def _described(value: Any) -> str:
    """Return a value in a few words, for messages."""
    if isinstance(value, list | dict):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", type(None): "null"}
    shown = repr(value)
    return f"{names.get(type(value), type(value).__name__)}: {shown if len(shown) <= 60 else shown[:57] + '...'}"
