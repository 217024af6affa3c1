"""Recognises how instruction data are laid out and turns each row into what TRL's trainers take."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sweeper.config.data import DataConfig, DataFormat
from sweeper.data.files import ROW_LIMIT_BYTES
from sweeper.errors import DataError

RowKind = Literal["text", "messages", "prompt_completion", "prompt_completion_messages"]
"""What converted rows hold: a text, a chat, or a prompt and a completion, both texts or both chats."""

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


def convert(rows: Sequence[Mapping[str, Any]], config: DataConfig, source: str) -> list[dict[str, Any]]:
    """Turn rows into TRL's layout; columns that it does not need are left out.

    Args:
        rows: Rows as read.
        config: Names the format and renames columns; ``auto`` goes by the columns of the first row.
        source: The file's name for messages.

    Returns:
        Rows with ``text``, with ``messages``, or with ``prompt`` and ``completion`` (both texts or both message
        lists); all of one kind.

    Raises:
        DataError: If a column is missing or a row does not fit; names the row, from 1.
    """
    if not rows:
        raise DataError(f"{source}: has no rows")
    layout = _layout(rows[0], config, source)
    converted: list[dict[str, Any]] = []
    for number, row in enumerate(rows, 1):
        try:
            converted.append(layout.build(_fields(row, layout, config)))
            _same_kind(converted[0], converted[-1])
        except ValueError as fault:
            raise DataError(f"{source}: row {number}: {fault}") from fault
    return converted


def kind_of(row: Mapping[str, Any]) -> RowKind:
    """Return what a converted row holds."""
    if "text" in row:
        return "text"
    if "messages" in row:
        return "messages"
    return "prompt_completion" if isinstance(row["prompt"], str) else "prompt_completion_messages"


def _same_kind(first: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    if kind_of(first) != kind_of(row):
        raise ValueError(f"mixed layouts: this row is {kind_of(row)}, the rows before are {kind_of(first)}")


def _build_messages(fields: Mapping[str, Any]) -> dict[str, Any]:
    name = next(iter(fields))
    messages = _messages(fields[name], name)
    _check_turns(messages, name)
    return {"messages": messages}


def _build_prompt_completion(fields: Mapping[str, Any]) -> dict[str, Any]:
    prompt, completion = fields["prompt"], fields["completion"]
    if not isinstance(prompt, list) and not isinstance(completion, list):
        return {"prompt": _text(prompt, "prompt"), "completion": _text(completion, "completion")}
    if not isinstance(prompt, list) or not isinstance(completion, list):
        raise ValueError("'prompt' and 'completion' must both be text or both be lists of messages")
    prompt, completion = _messages(prompt, "prompt"), _messages(completion, "completion")
    if prompt[-1]["role"] != "user":
        raise ValueError(f"'prompt' must end with the user's turn; found {prompt[-1]['role']!r}")
    _check_turns([*prompt, *completion], "prompt and completion")
    return {"prompt": prompt, "completion": completion}


def _build_alpaca(fields: Mapping[str, Any]) -> dict[str, Any]:
    instruction = _text(fields["instruction"], "instruction")
    completion = _text(fields["output"], "output")
    if fields.get("input") in (None, ""):
        return {"prompt": ALPACA.format(instruction=instruction), "completion": completion}
    context = _text(fields["input"], "input")
    return {"prompt": ALPACA_WITH_INPUT.format(instruction=instruction, input=context), "completion": completion}


def _build_text(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"text": _text(fields["text"], "text")}


@dataclass(frozen=True)
class _Layout:
    """One way to lay out rows: the columns it needs, those it may have, and how a row is built from them."""

    name: DataFormat
    required: tuple[str, ...]
    build: Callable[[Mapping[str, Any]], dict[str, Any]]
    optional: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        return self.required + self.optional


_LAYOUTS = (
    _Layout("messages", ("messages",), _build_messages),
    _Layout("messages", ("conversations",), _build_messages),
    _Layout("prompt_completion", ("prompt", "completion"), _build_prompt_completion),
    _Layout("alpaca", ("instruction", "output"), _build_alpaca, optional=("input",)),
    _Layout("text", ("text",), _build_text),
)
_COLUMNS = tuple(dict.fromkeys(name for layout in _LAYOUTS for name in layout.columns))


def _layout(row: Mapping[str, Any], config: DataConfig, source: str) -> _Layout:
    """Return the first layout whose columns are there, one with renamed columns before others."""
    for wanted in config.columns:
        if wanted not in _COLUMNS:
            raise DataError(f"data.columns: {wanted!r} is no column that is looked for; {_nearest(wanted, _COLUMNS)}")
    allowed = [layout for layout in _LAYOUTS if config.format in ("auto", layout.name)]
    there = {*row, *config.columns}
    fitting = [layout for layout in allowed if there.issuperset(layout.required)]
    fitting.sort(key=lambda layout: not set(layout.columns) & set(config.columns))
    if fitting:
        return fitting[0]
    wanted = " or ".join(" + ".join(layout.required) for layout in allowed)
    raise DataError(f"{source}: needs the columns {wanted}; found {_listed(row)}. {_renames(row, allowed, there)}")


def _renames(row: Mapping[str, Any], allowed: Sequence[_Layout], there: set[str]) -> str:
    """Return what to write in the study file: near names where all that is missing has one, else a pattern."""
    free = [str(name) for name in row if name not in _COLUMNS]
    for layout in allowed:
        missing = [name for name in layout.required if name not in there]
        near = [difflib.get_close_matches(name, free, n=1) for name in missing]
        if all(near):
            guess = ", ".join(f"{name}: {found[0]}" for name, found in zip(missing, near, strict=True))
            return f"Did you mean data.columns: {{{guess}}}?"
    example = next((layout for layout in allowed if layout.name == "prompt_completion"), allowed[0])
    pattern = ", ".join(f"{name}: <your column>" for name in example.required)
    return f"Name yours in the study file, for example data.columns: {{{pattern}}}"


def _fields(row: Mapping[str, Any], layout: _Layout, config: DataConfig) -> dict[str, Any]:
    """Return the fields of a layout by sweeper's names."""
    fields = {}
    for name in layout.columns:
        column = config.columns.get(name, name)
        if column in row:
            fields[name] = row[column]
        elif name in layout.required or name in config.columns:
            raise ValueError(f"the column {column!r} is missing; {_nearest(column, row)}")
    return fields


def _messages(value: Any, name: str) -> list[dict[str, str]]:
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
            raise ValueError(f"{place}: unknown role {str(role)[:40]!r}; known are {', '.join(ROLES)}")
        content = _text(message.get("content", message.get("value")), f"{name}[{number}].content")
        messages.append({"role": ROLES[role], "content": content})
    return messages


def _check_turns(messages: Sequence[Mapping[str, str]], name: str) -> None:
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


def _text(value: Any, name: str) -> str:
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


def _described(value: Any) -> str:
    if isinstance(value, list | dict):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", type(None): "null"}
    shown = repr(value)
    return f"{names.get(type(value), type(value).__name__)}: {shown if len(shown) <= 60 else shown[:57] + '...'}"


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(map(str, known)), n=1)
    return (f"did you mean {near[0]!r}? " if near else "") + f"there are {_listed(known)}"


def _listed(names: Iterable[str]) -> str:
    listed = [str(name)[:60] for name in names]
    return ", ".join(map(repr, listed[:20])) + (f" and {len(listed) - 20} more" if len(listed) > 20 else "")
