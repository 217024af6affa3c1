"""Comparison of a study file with the study begun before under its name, and its changed settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sweeper.config.loader import StudyFile
from sweeper.config.orders import budget_of, with_budget
from sweeper.config.study import StudyConfig
from sweeper.errors import StudyStateError
from sweeper.executors.listener import Listener
from sweeper.paths import Home
from sweeper.store import Database, OrderKind, OrderState, StudyRecord, StudyState, stored_config

_MOST_LINES = 20
_LONGEST_VALUE = 80
_MAY_CHANGE = ("executor", "keep", "storage")
"""What of a study file changes no trial: a study may go on with another."""


def is_begun(file: StudyFile, home: Home, database: Database) -> bool:
    """Tell whether this very study was begun and is not finished.

    Raises:
        StudyStateError: If its name is taken by another study, or it is finished.
    """
    name = file.config.name
    record = database.studies.find(name)
    if record is None and not home.study(name).pipeline.is_file():
        return False
    other = f"`sweeper run {file.path} --name {name}-2` begins another"
    differs = "" if record is None else _difference(file, record, database)
    if record is None or record.state is StudyState.FINISHED or differs:
        raise StudyStateError(
            f"study {name!r} is in {home.database} already{differs or '; '}`sweeper resume {name}` goes on with it, "
            f"{other}"
        )
    return True


def _difference(file: StudyFile, record: StudyRecord, database: Database) -> str:
    """Say where a study file differs from what a study was begun with; empty where it does not."""
    stored, config = stored_config(record), file.config
    orders = database.orders.all(record.name)
    if any(order.kind is OrderKind.BUDGET and order.state is OrderState.DONE for order in orders):
        config = with_budget(config, budget_of(stored))  # people changed it since: the file could not know
    former, wanted = (each.model_dump(mode="json", exclude=set(_MAY_CHANGE)) for each in (stored, config))
    lines = differences(former, wanted)
    return "\n  ".join([", begun with another file:", *lines, ""]) if lines else ""


def apply_changed_settings(config: StudyConfig, database: Database, listener: Listener) -> None:
    """Let a study go on as its new file says in what may change, and say what that is."""
    stored = stored_config(database.studies.get(config.name))
    changed = stored.model_copy(update={part: getattr(config, part) for part in _MAY_CHANGE})
    lines = differences(stored.model_dump(mode="json"), changed.model_dump(mode="json"))
    if lines:
        text = "; ".join(lines).replace(" there, ", " before, ").replace(" here", " now")
        database.studies.set_config(config.name, changed.model_dump(mode="json"))
        database.events.add(config.name, "changed", text)
        listener.note(f"it goes on by the new file: {text}")


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return a line for each value that differs, with its dotted path; at most 20, and how many there are beside."""
    lines = [f"{path}: {_shown(old)} there, {_shown(new)} here" for path, old, new in _walk(before, after, ())]
    beside = len(lines) - _MOST_LINES
    return lines if beside <= 0 else [*lines[:_MOST_LINES], f"and {beside} more"]


def _walk(before: Any, after: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in dict.fromkeys([*before, *after]):
            yield from _walk(before.get(name), after.get(name), (*path, str(name)))
    elif before != after:
        yield ".".join(path), before, after


def _shown(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"
