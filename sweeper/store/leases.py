"""Questions about leases: which worker holds which trial. Whoever holds none of a trial can store nothing of it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import bindparam, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from sweeper.errors import LeaseLost
from sweeper.retry import retried_methods
from sweeper.store.connection import Transactions
from sweeper.store.records import Lease
from sweeper.store.rows import columns, now, study_id
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
class Leases:
    """The leases of a database."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def take(self, study: str, number: int, worker: str) -> None:
        """Let a worker hold a trial.

        Raises:
            LeaseLost: If a worker holds it already.
            StudyStateError: If there is no such study.
        """
        row = {"number": number, "worker": worker, "retries": 0, "taken_at": now()}
        try:
            with self._transactions.writing(study) as session:
                row["study_id"] = study_id(session, study)
                holder = session.scalar(_HOLDER, {"study": row["study_id"], "trial": number})
                if holder not in (None, worker):
                    raise LeaseLost(f"trial {number} of study {study!r} is held by another worker")
                if holder is None:  # else it was stored when the connection was lost, and is asked for again
                    session.connection().execute(_TABLE.insert(), row)
        except IntegrityError as error:  # where the database lets two look at once
            raise LeaseLost(f"trial {number} of study {study!r} is held by another worker") from error

    def release(self, study: str, number: int, worker: str | None = None) -> None:
        """Let go of a trial: of one that ``worker`` holds, or whoever holds it; without harm where nobody does."""
        with self._transactions.writing(study) as session:
            of = {"study": study_id(session, study), "trial": number}
            if worker is None or session.scalar(_HOLDER, of) == worker:
                session.connection().execute(_RELEASE, of)

    def all(self, study: str) -> tuple[Lease, ...]:
        """Return the leases of a study by number.

        Raises:
            StudyStateError: If there is no such study.
        """
        with self._transactions.reading() as session:
            query = select(*columns(LeaseRow, Lease)).where(LeaseRow.study_id == study_id(session, study))
            return tuple(Lease(**row._mapping) for row in session.execute(query.order_by(LeaseRow.number)))

    def require(self, study: str, number: int, worker: str) -> None:
        """Make sure that a worker holds a trial.

        Raises:
            LeaseLost: If it does not, or no more.
        """
        with self._transactions.reading() as session:
            require_held(session, study, study_id(session, study), [number], worker)


def require_held(session: Session, study: str, key: int, numbers: Collection[int], worker: str) -> None:
    """Make sure, within a transaction, that a worker holds trials of a study.

    Raises:
        LeaseLost: If it does not hold one of them, or no more.
    """
    held = set(session.scalars(_HELD, {"study": key, "worker": worker, "numbers": list(numbers)}))
    if lost := sorted(set(numbers) - held):
        raise LeaseLost(
            f"trial {lost[0]} of study {study!r} was given to another worker, since this one was silent for too long"
        )
