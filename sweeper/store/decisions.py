"""Decision queries: what pruners decided, and on what grounds."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from sweeper.retry import retried_methods
from sweeper.store.leases import require_held
from sweeper.store.records import PruningDecision
from sweeper.store.rows import Queries, as_records, columns, trial_row
from sweeper.store.tables import DecisionRow


def _put(insert: Any) -> Any:
    """Return the statement that stores a decision in place of a former one at the same progress."""
    statement = insert(DecisionRow.__table__)
    new = {c.name: statement.excluded[c.name] for c in DecisionRow.__table__.columns if not c.primary_key}
    return statement.on_conflict_do_update(index_elements=["trial_id", "progress"], set_=new)


_PUT = {"sqlite": _put(sqlite.insert), "postgresql": _put(postgresql.insert)}


@retried_methods()
class Decisions(Queries):
    """The pruning decisions of a database."""

    def add(self, study: str, number: int, decision: PruningDecision, *, holder: str | None = None) -> None:
        """Store a decision on a trial; one at the same progress, taken before a crash, is replaced.

        ``holder`` is the worker that must hold the trial; None requires no lease.

        Raises:
            StudyStateError: If study or trial do not exist.
            LeaseLost: If ``holder`` does not hold the trial.
        """
        with self._transactions.writing(study) as session:
            trial = trial_row(session, study, number)
            if holder is not None:
                require_held(session, study, trial.study_id, [number], holder)
            row = {"trial_id": trial.id, **asdict(decision)}
            row["compared_json"] = row.pop("compared")
            connection = session.connection()
            connection.execute(_PUT[connection.dialect.name], row)

    def of(self, study: str, number: int) -> tuple[PruningDecision, ...] | None:
        """Return the decisions on a trial in order; None if the trial was run before decisions were recorded.

        Raises:
            StudyStateError: If study or trial do not exist.
        """
        with self._transactions.reading() as session:
            trial = trial_row(session, study, number)
            query = select(*columns(DecisionRow, PruningDecision)).where(DecisionRow.trial_id == trial.id)
            found = as_records(session, query.order_by(DecisionRow.progress), PruningDecision)
            if not found and not trial.decisions_recorded:
                return None
            return tuple(
                replace(each, compared=tuple((int(peer), float(value)) for peer, value in each.compared))
                for each in found
            )
