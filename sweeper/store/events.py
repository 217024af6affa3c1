"""Questions about what happened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select

from sweeper.retry import retried_methods
from sweeper.store.connection import Transactions
from sweeper.store.records import EventRecord
from sweeper.store.rows import changed_study, columns, now, study_id
from sweeper.store.tables import EventRow


@retried_methods()
class Events:
    """The events of a database."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def add(
        self, study: str, kind: str, message: str, *, number: int | None = None, data: Mapping[str, Any] | None = None
    ) -> None:
        """Store that something happened now, in a study or in its trial ``number``.

        Long messages are cut; data above 16 KB keep their size only.

        Raises:
            StudyStateError: If there is no such study.
        """
        with self._transactions.writing(study) as session:
            study_key, _ = changed_study(session, study)
            event = EventRow(study_id=study_key, number=number, at=now(), kind=kind, message=message)
            event.data = None if data is None else dict(data)
            session.add(event)

    def all(self, study: str, *, number: int | None = None, limit: int | None = None) -> tuple[EventRecord, ...]:
        """Return the events of a study, or of one of its trials, oldest first; with ``limit`` only so many of the last.

        Raises:
            StudyStateError: If there is no such study.
        """
        with self._transactions.reading() as session:
            query = select(*columns(EventRow, EventRecord)).where(EventRow.study_id == study_id(session, study))
            if number is not None:
                query = query.where(EventRow.number == number)
            rows = session.execute(query.order_by(EventRow.id.desc()).limit(limit))
            return tuple(EventRecord(*row) for row in rows)[::-1]
