"""Optuna's trials read from its tables in bulk: one query a table, and the trials built straight from the rows."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, text

STUDIES = models.StudyModel.__table__
TRIALS = models.TrialModel.__table__
PARAMS = models.TrialParamModel.__table__
VALUES = models.TrialValueModel.__table__
CURVES = models.TrialIntermediateValueModel.__table__
USER_ATTRS = models.TrialUserAttributeModel.__table__
SYSTEM_ATTRS = models.TrialSystemAttributeModel.__table__

MOST_KEYS = 10_000
"""Keys in one query; SQLite takes 32,766 variables."""

_NOT_FINITE = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}
_GROWING = (PARAMS, CURVES, USER_ATTRS, SYSTEM_ATTRS)

Mark = tuple[Any, ...]
"""Differs whenever what the storage holds of an unfinished trial differs."""


class Head(NamedTuple):
    """A row of the table of trials."""

    trial_id: int
    number: int
    state: TrialState
    datetime_start: datetime | None
    datetime_complete: datetime | None


def heads(connection: Connection, where: str) -> list[Head]:
    """Return the rows of the table of trials for which ``where``, SQL of keys only, holds; in the order of the keys."""
    return [Head(*row) for row in connection.execute(_heads(where))]


def _heads(where: str) -> Any:
    query = f"SELECT {', '.join(Head._fields)} FROM trials WHERE {where} ORDER BY trial_id"
    return text(query).columns(*(TRIALS.c[name] for name in Head._fields))


def marks(connection: Connection, open_: Sequence[Head]) -> dict[int, Mark]:
    """Return a mark of every unfinished trial, without reading what it holds.

    The number of rows and the highest key in each table: rows are only added, and where one is changed in place the
    storage gives it a new key.
    """
    found: dict[int, list[Any]] = {head.trial_id: [head] for head in open_}
    for where in among(list(found)):
        query = " UNION ALL ".join(
            f"SELECT {place}, trial_id, count(*), max({table.primary_key.columns[0].name}) FROM {table.name} "
            f"WHERE {where} GROUP BY trial_id"
            for place, table in enumerate(_GROWING)
        )
        for place, trial_id, rows, highest in sorted(_fetched(connection, query)):
            found[trial_id].append((place, rows, highest))
    return {trial_id: tuple(parts) for trial_id, parts in found.items()}


def load(connection: Connection, wanted: Sequence[Head], study_id: int | None = None) -> list[FrozenTrial]:
    """Return the trials of ``wanted``, in its order.

    The transaction has read ``wanted`` before: what a finished trial holds does not change. ``study_id`` is their study
    where they are all of it, which spares naming every one.
    """
    parts = _Parts()
    if study_id is not None:
        parts.read(connection, f"trial_id IN (SELECT trial_id FROM trials WHERE study_id = {int(study_id)})")
    else:
        for where in among([head.trial_id for head in wanted]):
            parts.read(connection, where)
    return [parts.trial(head) for head in wanted]


def among(keys: Sequence[int]) -> Iterator[str]:
    """Yield SQL that holds for trials with these keys, in parts that one query can take.

    Keys are written into the statements: SQLAlchemy's expressions cost more than the queries, which are asked at every
    report.
    """
    for start in range(0, len(keys), MOST_KEYS):
        yield f"trial_id IN ({', '.join(str(int(key)) for key in keys[start : start + MOST_KEYS])})"


class _Parts:
    """What the tables hold of some trials, by the key of the trial."""

    def __init__(self) -> None:
        self.values: dict[int, dict[int, float]] = defaultdict(dict)
        self.params: dict[int, dict[str, Any]] = defaultdict(dict)
        self.distributions: dict[int, dict[str, BaseDistribution]] = defaultdict(dict)
        self.curves: dict[int, dict[int, float]] = defaultdict(dict)
        self.user_attrs: dict[int, dict[str, Any]] = defaultdict(dict)
        self.system_attrs: dict[int, dict[str, Any]] = defaultdict(dict)

    def read(self, connection: Connection, where: str) -> None:
        """Add the rows of the trials for which ``where`` holds."""
        query = f"SELECT param_id, trial_id, param_name, param_value, distribution_json FROM trial_params WHERE {where}"
        for _, trial_id, name, value, told in sorted(_fetched(connection, query)):  # in the order of their suggestion
            distribution = self.distributions[trial_id][name] = _distribution(told)
            self.params[trial_id][name] = distribution.to_external_repr(value)
        for table, found, index, value in (
            ("trial_values", self.values, "objective", "value"),
            ("trial_intermediate_values", self.curves, "step", "intermediate_value"),
        ):
            name = f"CASE WHEN {value} IS NULL THEN {value}_type END"
            for trial_id, at, number, not_finite in _fetched(
                connection, f"SELECT trial_id, {index}, {value}, {name} FROM {table} WHERE {where}"
            ):
                found[trial_id][at] = _NOT_FINITE[not_finite] if not_finite else number
        for table, attrs in (
            ("trial_user_attributes", self.user_attrs),
            ("trial_system_attributes", self.system_attrs),
        ):
            query = f"SELECT trial_id, key, value_json FROM {table} WHERE {where}"
            for trial_id, key, told in _fetched(connection, query):
                attrs[trial_id][key] = json.loads(told) if told[0] in "[{" else _scalar(told)

    def trial(self, head: Head) -> FrozenTrial:
        """Return the trial with this head."""
        key = head.trial_id
        values = self.values.pop(key, None)
        return FrozenTrial(
            number=head.number,
            state=head.state,
            value=None,
            values=[values[objective] for objective in sorted(values)] if values else None,
            datetime_start=_local(head.datetime_start),
            datetime_complete=_local(head.datetime_complete),
            params=self.params.pop(key, {}),
            distributions=self.distributions.pop(key, {}),
            user_attrs=self.user_attrs.pop(key, {}),
            system_attrs=self.system_attrs.pop(key, {}),
            intermediate_values=self.curves.pop(key, {}),
            trial_id=key,
        )


def _fetched(connection: Connection, query: str) -> Iterator[tuple[Any, ...]]:
    """Yield a query's rows as the driver has them: of half a million, SQLAlchemy's own rows cost more than all else."""
    cursor: Iterator[tuple[Any, ...]] | None = connection.exec_driver_sql(query).cursor  # type: ignore[assignment]
    assert cursor is not None
    return cursor


@lru_cache(maxsize=10_000)
def _scalar(told: str) -> Any:
    return json.loads(told)


@lru_cache(maxsize=1000)
def _distribution(told: str) -> BaseDistribution:
    """Return the distribution that a row holds; all trials of a study share one object."""
    return json_to_distribution(told)


def _local(utc: datetime | None) -> datetime | None:
    """Return a stored time as Optuna's trials have it: local time that does not say so."""
    return utc and utc.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)


def stored_value(value: float) -> tuple[float | None, str]:
    """Return a number as the tables hold it: NaN and the infinities by name."""
    if math.isfinite(value):
        return float(value), "FINITE"
    return None, "NAN" if math.isnan(value) else "INF_POS" if value > 0 else "INF_NEG"


def attributes(trial_id: int, attrs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a trial's attributes as rows."""
    return [{"trial_id": trial_id, "key": key, "value_json": json.dumps(value)} for key, value in attrs.items()]


def curve(trial_id: int, values: Iterable[tuple[int, float]]) -> list[dict[str, Any]]:
    """Return a trial's reports as rows."""
    rows = []
    for step, value in values:
        stored, kind = stored_value(value)
        row = {"trial_id": trial_id, "step": step, "intermediate_value": stored, "intermediate_value_type": kind}
        rows.append(row)
    return rows
