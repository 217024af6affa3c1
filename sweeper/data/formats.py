"""Detection of a data set's layout, and its rows in the columns that TRL's trainers take."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from sweeper.config.data import DataConfig, DataFormat
from sweeper.config.technique import Rows
from sweeper.data.layouts import (
    as_labelled,
    as_prompt,
    build_alpaca,
    build_labelled,
    build_messages,
    build_pair,
    build_prompt,
    build_prompt_completion,
    build_text,
)
from sweeper.errors import DataError

RowKind = Literal[
    "text",
    "messages",
    "prompt_completion",
    "prompt_completion_messages",
    "preference",
    "preference_messages",
    "unpaired_preference",
    "unpaired_preference_messages",
    "prompt",
    "prompt_messages",
]
"""Contents of converted rows, in TRL's terms; those that end in ``messages`` are chats."""


def convert(
    rows: Sequence[Mapping[str, Any]], config: DataConfig, source: str, learns: Rows = "answers"
) -> list[dict[str, Any]]:
    """Turn rows into TRL's layout; columns that it does not need are left out.

    Args:
        rows: Rows as read.
        config: Names the format and renames columns; ``auto`` goes by the columns of the first row.
        source: The file's name for messages.
        learns: What the technique learns from.

    Returns:
        Rows of one ``RowKind``, with the columns that ``layouts`` builds.

    Raises:
        DataError: If a column is missing or a row does not fit; names the row, from 1.
    """
    if not rows:
        raise DataError(f"{source}: has no rows")
    layout = _layout(rows[0], config, source, learns)
    converted: list[dict[str, Any]] = []
    for number, row in enumerate(rows, 1):
        try:
            converted += _FINISH[learns](layout.build(_fields(row, layout, config)))
            _same_kind(converted[0], converted[-1])
        except ValueError as fault:
            raise DataError(f"{source}: row {number}: {fault}") from fault
    return converted


def kind_of(row: Mapping[str, Any]) -> RowKind:
    """Return the kind of a converted row."""
    if "text" in row:
        return "text"
    if "messages" in row:
        return "messages"
    if "chosen" in row:
        kind = "preference"
    elif "label" in row:
        kind = "unpaired_preference"
    else:
        kind = "prompt_completion" if "completion" in row else "prompt"
    return cast(RowKind, kind if isinstance(row["prompt"], str) else f"{kind}_messages")


def texts_of(row: Mapping[str, Any]) -> list[str]:
    """Return every text of a converted row, of a chat the content of each turn."""
    parts = [
        [message["content"] for message in value] if isinstance(value, list) else [value] for value in row.values()
    ]
    return [text for part in parts for text in part if isinstance(text, str)]


def is_chat(kind: RowKind) -> bool:
    """Return whether rows of this kind are chats."""
    return kind.endswith("messages")


def _same_kind(first: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    if kind_of(first) != kind_of(row):
        raise ValueError(f"mixed layouts: this row is {kind_of(row)}, the rows before are {kind_of(first)}")


@dataclass(frozen=True)
class _Layout:
    """A row layout: its required and optional columns, and its builder."""

    name: DataFormat
    required: tuple[str, ...]
    build: Callable[[Mapping[str, Any]], dict[str, Any]]
    optional: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        return self.required + self.optional


_ANSWERS = (
    _Layout("messages", ("messages",), build_messages),
    _Layout("messages", ("conversations",), build_messages),
    _Layout("prompt_completion", ("prompt", "completion"), build_prompt_completion),
    _Layout("alpaca", ("instruction", "output"), build_alpaca, optional=("input",)),
    _Layout("text", ("text",), build_text),
)
_PAIRS = (_Layout("preference", ("chosen", "rejected"), build_pair, optional=("prompt", "margin")),)
_LAYOUTS: dict[Rows, tuple[_Layout, ...]] = {
    "answers": _ANSWERS,
    "pairs": _PAIRS,
    "labelled": (_Layout("unpaired_preference", ("prompt", "completion", "label"), build_labelled), *_PAIRS),
    "prompts": (*_ANSWERS[:-1], _Layout("prompt", ("prompt",), build_prompt, optional=("reference",)), *_PAIRS),
}
"""The layouts that each kind of learning accepts; the first that fits is used."""

_FINISH: dict[Rows, Callable[[dict[str, Any]], list[dict[str, Any]]]] = {
    "answers": lambda row: [row],
    "pairs": lambda row: [row],
    "labelled": as_labelled,
    "prompts": as_prompt,
}
"""From a layout's row to the rows to learn from."""

_COLUMNS = tuple(dict.fromkeys(name for layouts in _LAYOUTS.values() for layout in layouts for name in layout.columns))


def _layout(row: Mapping[str, Any], config: DataConfig, source: str, learns: Rows) -> _Layout:
    """Return the first layout whose columns are there, one with renamed columns before others."""
    for wanted in config.columns:
        if wanted not in _COLUMNS:
            raise DataError(f"data.columns: {wanted!r} is no column that is looked for; {_nearest(wanted, _COLUMNS)}")
    allowed = [layout for layout in _LAYOUTS[learns] if config.format in ("auto", layout.name)]
    if not allowed:
        names = dict.fromkeys(layout.name for layout in _LAYOUTS[learns])
        raise DataError(f"data.format: {config.format} is not what the technique learns from; use {', '.join(names)}")
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


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(map(str, known)), n=1)
    return (f"did you mean {near[0]!r}? " if near else "") + f"there are {_listed(known)}"


def _listed(names: Iterable[str]) -> str:
    listed = [str(name)[:60] for name in names]
    return ", ".join(map(repr, listed[:20])) + (f" and {len(listed) - 20} more" if len(listed) > 20 else "")
