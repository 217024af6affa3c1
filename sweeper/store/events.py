"""Event queries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweeper.retry import retried_methods
from sweeper.store.records import EventRecord
from sweeper.store.rows import Queries, changed_study, now
from sweeper.store.tables import EventRow


@retried_methods()
class Events(Queries):
    """The events of a database."""

    def add(
        self, study: str, kind: str, message: str, *, number: int | None = None, data: Mapping[str, Any] | None = None
    ) -> None:
        """Store an event of a study, or of its trial ``number``, that happens now.

        Long messages are cut; data above 16 KB keep their size only.
        """
        with self._transactions.writing(study) as session:
            key, _ = changed_study(session, study)
            kept = None if data is None else dict(data)
            session.add(EventRow(study_id=key, number=number, at=now(), kind=kind, message=message, data=kept))

    def all(self, study: str, *, number: int | None = None, limit: int | None = None) -> tuple[EventRecord, ...]:
        """Return the events of a study, or of one of its trials, oldest first; ``limit`` keeps the last."""
        equal, order = {EventRow.number: number}, [EventRow.id.desc()]
        return self._fetch(EventRecord, EventRow, study=study, equal=equal, order_by=order, limit=limit)[::-1]
