"""Lease queries: which worker holds which trial. A worker that does not hold a trial can store nothing of it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import bindparam, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from sweeper.errors import LeaseLost
from sweeper.retry import retried_methods
from sweeper.store.records import Lease
from sweeper.store.rows import Queries, now, study_id
from sweeper.store.tables import LeaseRow

SCORING = -1
"""In place of a trial's number: the final scoring, which one worker does."""

# Made once: making a statement takes longer than executing it, and these are executed while others wait for the lock.
_TABLE: Any = LeaseRow.__table__
_OF_ONE = _TABLE.c.study_id == bindparam("study"), _TABLE.c.number == bindparam("trial")
_HOLDER = select(_TABLE.c.worker).where(*_OF_ONE)
_RELEASE = _TABLE.delete().where(*_OF_ONE)
_HELD = select(_TABLE.c.number).where(
    _TABLE.c.study_id == bindparam("study"),
    _TABLE.c.worker == bindparam("worker"),
    _TABLE.c.number.in_(bindparam("numbers", expanding=True)),
)


@retried_methods()
class Leases(Queries):
    """The leases of a database."""

    def take(self, study: str, number: int, worker: str) -> None:
        """Give a worker the lease of a trial.

        Raises:
            LeaseLost: If another worker holds it.
            StudyStateError: If there is no such study.
        """
        row = {"number": number, "worker": worker, "retries": 0, "taken_at": now()}
        try:
            with self._transactions.writing(study) as session:
                row["study_id"] = study_id(session, study)
                holder = session.scalar(_HOLDER, {"study": row["study_id"], "trial": number})
                if holder not in (None, worker):
                    raise LeaseLost(f"trial {number} of study {study!r} is held by another worker")
                if holder is None:  # else it was stored before the connection was lost
                    session.connection().execute(_TABLE.insert(), row)
        except IntegrityError as error:  # on a database that lets two look at once
            raise LeaseLost(f"trial {number} of study {study!r} is held by another worker") from error

    def release(self, study: str, number: int, worker: str | None = None) -> None:
        """Release the lease of a trial, if ``worker`` holds it; with None, whichever worker does."""
        with self._transactions.writing(study) as session:
            of = {"study": study_id(session, study), "trial": number}
            if worker is None or session.scalar(_HOLDER, of) == worker:
                session.connection().execute(_RELEASE, of)

    def all(self, study: str) -> tuple[Lease, ...]:
        """Return the leases of a study by number."""
        return self._fetch(Lease, LeaseRow, study=study, order_by=[LeaseRow.number])

    def require(self, study: str, number: int, worker: str) -> None:
        """Make sure that a worker holds a trial.

        Raises:
            LeaseLost: If it does not, or no longer.
        """
        with self._transactions.reading() as session:
            require_held(session, study, study_id(session, study), [number], worker)


def require_held(session: Session, study: str, key: int, numbers: Collection[int], worker: str) -> None:
    """Make sure, within a transaction, that a worker holds trials of a study.

    Raises:
        LeaseLost: If it does not hold one of them, or no longer.
    """
    held = set(session.scalars(_HELD, {"study": key, "worker": worker, "numbers": list(numbers)}))
    if lost := sorted(set(numbers) - held):
        raise LeaseLost(
            f"trial {lost[0]} of study {study!r} was reassigned to another worker: this one missed its heartbeats"
        )
