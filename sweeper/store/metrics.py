"""Metric queries: what trials report while they train."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from numbers import Real
from typing import Any

from sqlalchemy import Float, bindparam, select, type_coerce, update
from sqlalchemy.dialects import postgresql, sqlite

from sweeper.errors import DatabaseError, StudyStateError
from sweeper.retry import retried_methods
from sweeper.store.leases import require_held
from sweeper.store.records import MetricPoint
from sweeper.store.rows import Queries, as_records, changed_study, study_id
from sweeper.store.tables import MetricRow, TrialRow

LARGEST_STEP = 2**63 - 1
LONGEST_NAME = 100

Reported = tuple[int, int, Mapping[str, float]] | tuple[int, int, Mapping[str, float], float]
"""Trial number, optimizer step, values by name, and the seconds since the trial began if they are known."""

# Made once: making a statement takes longer than executing it, and these are executed while others wait for the lock.
_TRIALS: Any = TrialRow.__table__
_KEYS = select(_TRIALS.c.number, _TRIALS.c.id).where(
    _TRIALS.c.study_id == bindparam("study"), _TRIALS.c.number.in_(bindparam("numbers", expanding=True))
)
_REACH = (
    update(_TRIALS)
    .where(_TRIALS.c.id == bindparam("trial"), _TRIALS.c.outcome.is_(None))
    .values(steps=bindparam("step"), changed=bindparam("change"))
)


def _put(insert: Any) -> Any:
    """Return the statement that stores points in place of those reported before."""
    statement = insert(MetricRow.__table__)
    new = {"value": statement.excluded.value, "seconds": statement.excluded.seconds}
    return statement.on_conflict_do_update(index_elements=["trial_id", "step", "name"], set_=new)


_POINTS = (
    select(TrialRow.number, MetricRow.step, MetricRow.name, MetricRow.value, MetricRow.seconds)
    .select_from(MetricRow)
    .join(TrialRow, TrialRow.id == MetricRow.trial_id)
)
_PUT = {"sqlite": _put(sqlite.insert), "postgresql": _put(postgresql.insert)}


@retried_methods()
class Metrics(Queries):
    """The metrics of a database, by study, trial and optimizer step."""

    def add(self, study: str, batch: Iterable[Reported], *, holder: str | None = None) -> None:
        """Store many reports in one transaction; a step reported again replaces the former.

        ``holder`` is the worker that must hold the trials; None requires no lease.

        Raises:
            StudyStateError: If the study or one of the trials does not exist.
            LeaseLost: If ``holder`` does not hold one of the trials; then nothing of the batch is stored.
            DatabaseError: If a step, name or value cannot be stored; then nothing of the batch is.
        """
        points = [
            _checked(number, step, name, value, *seconds)
            for number, step, of, *seconds in batch
            for name, value in of.items()
        ]
        if not points:
            return
        with self._transactions.writing(study) as session:
            study_key, change = changed_study(session, study)
            connection = session.connection()
            told = {"study": study_key, "numbers": list({p.number for p in points})}
            keys = {row.number: row.id for row in connection.execute(_KEYS, told)}
            missing = {point.number for point in points} - set(keys)
            if missing:
                raise StudyStateError(f"study {study!r} has no trial {min(missing)}")
            if holder is not None:
                require_held(session, study, study_key, set(keys), holder)
            rows = [
                {"trial_id": keys[p.number], "step": p.step, "name": p.name, "value": p.value, "seconds": p.seconds}
                for p in points
            ]
            connection.execute(_PUT[connection.dialect.name], rows)
            reached = {keys[p.number]: p.step for p in sorted(points, key=lambda p: p.step)}
            connection.execute(
                _REACH, [{"trial": key, "step": step, "change": change} for key, step in reached.items()]
            )

    def get(self, study: str, *, number: int | None = None, name: str | None = None) -> tuple[MetricPoint, ...]:
        """Return the metrics of a study by trial and step, all or those of one trial or one name."""
        with self._transactions.reading() as session:
            query = _POINTS.where(TrialRow.study_id == study_id(session, study))
            if number is not None:
                query = query.where(TrialRow.number == number)
            if name is not None:
                query = query.where(MetricRow.name == name)
            query = query.order_by(TrialRow.number, MetricRow.step, MetricRow.name)
            return as_records(session, query, MetricPoint)

    def since(self, study: str, seen: Mapping[int, int]) -> tuple[MetricPoint, ...]:
        """Return what some trials reported at or after the step in ``seen`` of each, by trial and step."""
        query, found = _POINTS.order_by(MetricRow.step, MetricRow.name), list[MetricPoint]()
        with self._transactions.reading() as session:
            key = study_id(session, study)
            for number, step in sorted(seen.items()):  # few run at a time, and each is one look-up by primary key
                of_one = TrialRow.study_id == key, TrialRow.number == number, MetricRow.step >= step
                found += as_records(session, query.where(*of_one), MetricPoint)
        return tuple(found)

    def curves(
        self, study: str, numbers: Collection[int], names: Collection[str] = ()
    ) -> list[tuple[int, int, str, float | None, float | None]]:
        """Return (trial number, step, name, value, seconds) of some trials, by trial and step; NaN comes as None.

        Plain database rows: a chart of many trials needs hundreds of thousands of them. Without ``names`` they are of
        all metrics.
        """
        with self._transactions.reading() as session:
            chosen = TrialRow.study_id == study_id(session, study), TrialRow.number.in_(numbers)
            value = type_coerce(MetricRow.value, Float)
            query = select(TrialRow.number, MetricRow.step, MetricRow.name, value, MetricRow.seconds)
            query = query.join(TrialRow, TrialRow.id == MetricRow.trial_id).where(*chosen)
            if names:
                query = query.where(MetricRow.name.in_(names))
            rows = session.execute(query.order_by(TrialRow.number, MetricRow.step))
            return [tuple(row) for row in rows]


def _checked(number: int, step: int, name: str, value: Any, seconds: float | None = None) -> MetricPoint:
    subject = f"metric {name!r:.120} of trial {number}"
    if not 0 <= step <= LARGEST_STEP:
        raise DatabaseError(f"{subject}: step {step} is not between 0 and {LARGEST_STEP}")
    if not 0 < len(name) <= LONGEST_NAME:
        raise DatabaseError(f"{subject}: a name has 1 to {LONGEST_NAME} characters")
    if isinstance(value, bool) or not isinstance(value, Real):
        raise DatabaseError(f"{subject} at step {step} is not a number: {value!r:.120}")
    return MetricPoint(number, step, name, float(value), seconds)
