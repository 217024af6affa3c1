"""Where two settings differ, value by value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_MOST = 20
_LONGEST = 80


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return a line for each value that differs, with its dotted path; at most 20, and how many there are beside."""
    lines = [f"{path}: {_shown(old)} there, {_shown(new)} here" for path, old, new in _walk(before, after, ())]
    beside = len(lines) - _MOST
    return lines if beside <= 0 else [*lines[:_MOST], f"and {beside} more"]


def _walk(before: Any, after: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in dict.fromkeys([*before, *after]):
            yield from _walk(before.get(name), after.get(name), (*path, str(name)))
    elif before != after:
        yield ".".join(path), before, after


def _shown(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
