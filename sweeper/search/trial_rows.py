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
from sqlalchemy import ColumnElement, Connection, Select, String, case, func, literal, select, type_coerce, union_all

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


def heads(connection: Connection, where: ColumnElement[bool]) -> list[Head]:
    """Return the rows of the table of trials for which ``where`` holds, in the order of their keys."""
    columns = [TRIALS.c[name] for name in Head._fields]
    return [Head(*row) for row in connection.execute(select(*columns).where(where).order_by(TRIALS.c.trial_id))]


def marks(connection: Connection, open_: Sequence[Head]) -> dict[int, Mark]:
    """Return a mark of every unfinished trial, without reading what it holds.

    The number of rows and the highest key in each table: rows are only added, and where one is changed in place the
    storage gives it a new key.
    """
    found: dict[int, list[Any]] = {head.trial_id: [head] for head in open_}
    for keys in portions(list(found)):
        counted = union_all(*(_counted(place, table, keys) for place, table in enumerate(_GROWING)))
        for place, trial_id, rows, highest in sorted(connection.execute(counted)):
            found[trial_id].append((place, rows, highest))
    return {trial_id: tuple(parts) for trial_id, parts in found.items()}


def _counted(place: int, table: Any, keys: Sequence[int]) -> Select[Any]:
    (primary,) = table.primary_key
    query = select(literal(place).label("place"), table.c.trial_id, func.count(), func.max(primary))
    return query.where(table.c.trial_id.in_(keys)).group_by(table.c.trial_id)


def load(connection: Connection, wanted: Sequence[Head], study_id: int | None = None) -> list[FrozenTrial]:
    """Return the trials of ``wanted``, in its order.

    Args:
        connection: In a transaction that has read ``wanted`` before: what a finished trial holds does not change.
        wanted: Their heads.
        study_id: Their study where they are all of it, which spares naming every one.
    """
    parts = _Parts()
    if study_id is not None:
        of_study = select(TRIALS.c.trial_id).where(TRIALS.c.study_id == study_id)
        parts.read(connection, lambda table: table.c.trial_id.in_(of_study))
    else:
        for keys in portions([head.trial_id for head in wanted]):
            parts.read(connection, lambda table, keys=keys: table.c.trial_id.in_(keys))
    return [parts.trial(head) for head in wanted]


def portions(keys: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield ``keys`` in parts that one query can take."""
    for start in range(0, len(keys), MOST_KEYS):
        yield keys[start : start + MOST_KEYS]


class _Parts:
    """What the tables hold of some trials, by the key of the trial."""

    def __init__(self) -> None:
        self.values: dict[int, dict[int, float]] = defaultdict(dict)
        self.params: dict[int, dict[str, Any]] = defaultdict(dict)
        self.distributions: dict[int, dict[str, BaseDistribution]] = defaultdict(dict)
        self.curves: dict[int, dict[int, float]] = defaultdict(dict)
        self.user_attrs: dict[int, dict[str, Any]] = defaultdict(dict)
        self.system_attrs: dict[int, dict[str, Any]] = defaultdict(dict)

    def read(self, connection: Connection, of: Any) -> None:
        """Add the rows for which ``of`` of their table holds."""
        self._read_params(connection, of)
        for table, found, index, value in (
            (VALUES, self.values, "objective", "value"),
            (CURVES, self.curves, "step", "intermediate_value"),
        ):
            name = case((table.c[value].is_(None), type_coerce(table.c[f"{value}_type"], String)))
            query = select(table.c.trial_id, table.c[index], table.c[value], name).where(of(table))
            for trial_id, at, number, not_finite in _fetched(connection, query):
                found[trial_id][at] = _NOT_FINITE[not_finite] if not_finite else number
        for table, attrs in ((USER_ATTRS, self.user_attrs), (SYSTEM_ATTRS, self.system_attrs)):
            query = select(table.c.trial_id, table.c.key, table.c.value_json).where(of(table))
            for trial_id, key, text in _fetched(connection, query):
                attrs[trial_id][key] = json.loads(text) if text[0] in "[{" else _scalar(text)

    def _read_params(self, connection: Connection, of: Any) -> None:
        columns = PARAMS.c.param_id, PARAMS.c.trial_id, PARAMS.c.param_name, PARAMS.c.param_value
        query = select(*columns, PARAMS.c.distribution_json).where(of(PARAMS))
        for _, trial_id, name, value, text in sorted(_fetched(connection, query)):  # in the order of their suggestion
            distribution = self.distributions[trial_id][name] = _distribution(text)
            self.params[trial_id][name] = distribution.to_external_repr(value)

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


def _fetched(connection: Connection, query: Select[Any]) -> Iterator[tuple[Any, ...]]:
    """Yield a query's rows as the driver has them: of half a million, SQLAlchemy's own rows cost more than all else.

    Only numbers are written into the statement, so nothing in it can be taken for SQL.
    """
    text = query.compile(connection.engine, compile_kwargs={"literal_binds": True})
    cursor = connection.exec_driver_sql(str(text)).cursor
    assert cursor is not None
    return cursor


@lru_cache(maxsize=10_000)
def _scalar(text: str) -> Any:
    return json.loads(text)


@lru_cache(maxsize=1000)
def _distribution(text: str) -> BaseDistribution:
    """Return the distribution that a row holds; all trials of a study share one object."""
    return json_to_distribution(text)


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
