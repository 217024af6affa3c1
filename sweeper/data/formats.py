"""Detection of a data set's layout, and its rows in the columns that TRL's trainers take."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from sweeper.config.data import DataConfig, DataFormat
from sweeper.config.technique import Rows
from sweeper.data.files import INDEX_COLUMNS
from sweeper.data.layouts import (
    MESSAGE_KEYS,
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


@dataclass
class Conversion:
    """The rows of a source in TRL's layout.

    Attributes:
        rows: The converted rows.
        groups: For each the value of ``data.group``; None without one.
        left_out: Rows by the column, or the key of messages, that none of them uses.
        skipped: Rows by the reason why they do not fit.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    groups: list[Any] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)

    def notes(self, source: str) -> list[str]:
        """Return how many rows were skipped, a line for each reason."""
        return [f"{source}: skipped {count:,} rows: {reason}" for reason, count in self.skipped.most_common(20)]

    def unused(self, source: str) -> list[str]:
        """Return which columns and keys were left out, in one line."""
        columns = ", ".join(f"{name} ({count:,} rows)" for name, count in self.left_out.most_common())
        return [f"{source}: left out, as nothing is learned from it: {columns}"] if columns else []


def convert(
    rows: Sequence[Mapping[str, Any]], config: DataConfig, source: str, learns: Rows = "answers"
) -> list[dict[str, Any]]:
    """Return the rows of ``convert_source``."""
    return convert_source(rows, config, source, learns).rows


def convert_source(
    rows: Sequence[Mapping[str, Any]], config: DataConfig, source: str, learns: Rows = "answers"
) -> Conversion:
    """Turn rows into TRL's layout; columns that nothing is learned from are left out and counted.

    Args:
        rows: Rows as read.
        config: Names the format and renames columns; ``auto`` goes by the columns of the first row.
        source: The file's name for messages.
        learns: What the technique learns from.

    Raises:
        DataError: If a column is missing, or rows do not fit and ``data.skip_invalid`` is false; names the first such
            row, from 1, and how many there are.
    """
    if not rows:
        raise DataError(f"{source}: has no rows")
    layout = _layout(rows[0], config, source, learns)
    found, faults = Conversion(), {}
    for number, row in enumerate(rows, 1):
        try:
            made = _FINISH[learns](layout.build(_fields(row, layout, config)))
            _same_kind(found.rows[0] if found.rows else made[0], made[-1])
            group = None if config.group is None else _group(row, config.group)
        except ValueError as fault:
            faults[number] = str(fault)
            continue
        found.rows += made
        found.groups += [group] * len(made)
        found.left_out.update(_unused(row, layout, config))
    if not faults:
        return found
    if config.skip_invalid and found.rows:
        found.skipped.update(faults.values())
        return found
    number, reason = next(iter(faults.items()))
    several = f" ({len(faults):,} of {len(rows):,} rows do not fit; data.skip_invalid: true leaves them out)"
    raise DataError(f"{source}: row {number}: {reason}{several if len(faults) > 1 else ''}")


def _group(row: Mapping[str, Any], column: str) -> Any:
    if row.get(column) is None:
        raise ValueError(f"the column {column!r} of data.group is missing; {_nearest(column, row)}")
    return row[column]


def _unused(row: Mapping[str, Any], layout: _Layout, config: DataConfig) -> set[str]:
    """Return the columns of a row, and the keys of its messages, that hold something and are not used.

    Raises:
        ValueError: If there are pictures, without which the row says something else.
    """
    used = {config.columns.get(name, name) for name in layout.columns}
    others = {name: value for name, value in row.items() if name not in used and value not in (None, "", [], {})}
    keys = {
        f"{column}.{key}"
        for column in used
        if isinstance(messages := row.get(column), list)
        for message in messages
        if isinstance(message, dict)
        for key, value in message.items()
        if key not in MESSAGE_KEYS and value not in (None, "", [], {}) and column != "tools"
    }
    return {str(name) for name in others if name not in (*INDEX_COLUMNS, config.group)} | keys


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
        [message.get("content") for message in value] if isinstance(value, list) else [value] for value in row.values()
    ]
    return [text for part in parts for text in part if isinstance(text, str)]


def is_chat(kind: RowKind) -> bool:
    """Return whether rows of this kind are chats."""
    return kind.endswith("messages")


def _same_kind(first: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    if kind_of(first) != kind_of(row):
        raise ValueError(f"mixed layouts: this row is {kind_of(row)}, the rows before are {kind_of(first)}")


_PICTURES = ("images", "image", "videos", "audios")


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


_AROUND_CHAT = ("system", "tools", *_PICTURES)
_AROUND_INSTRUCTION = ("input", "system", "history", *_PICTURES)
_ANSWERS = (
    _Layout("messages", ("messages",), build_messages, optional=_AROUND_CHAT),
    _Layout("messages", ("conversations",), build_messages, optional=_AROUND_CHAT),
    _Layout("prompt_completion", ("prompt", "completion"), build_prompt_completion, optional=_AROUND_CHAT),
    _Layout("alpaca", ("instruction", "output"), build_alpaca, optional=_AROUND_INSTRUCTION),
    _Layout("text", ("text",), build_text),
)
_PAIRS = (
    _Layout(
        "preference",
        ("chosen", "rejected"),
        build_pair,
        optional=("prompt", "margin", "conversations", "instruction", "tools", *_AROUND_INSTRUCTION),
    ),
)
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
    for name in _PICTURES:
        if fields.pop(name, None) not in (None, "", []):
            raise ValueError(f"has {name}, and only text can be trained on")
    return fields


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(map(str, known)), n=1)
    return (f"did you mean {near[0]!r}? " if near else "") + f"there are {_listed(known)}"


def _listed(names: Iterable[str]) -> str:
    listed = [str(name)[:60] for name in names]
    return ", ".join(map(repr, listed[:20])) + (f" and {len(listed) - 20} more" if len(listed) > 20 else "")
