"""Questions about registered adapters; the rules of the registry are in ``sweeper.registry``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from sqlalchemy import func, select

from sweeper.store.connection import Sessions
from sweeper.store.records import AdapterRecord, Stage
from sweeper.store.rows import changed_study, columns, trial_row
from sweeper.store.tables import AdapterRow, StudyRow


class Adapters:
    """The adapter versions of a database."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def add(self, record: AdapterRecord) -> None:
        """Store a new version.

        Raises:
            StudyStateError: If its study or trial do not exist.
        """
        with self._sessions.writing() as session:
            trial_row(session, record.study, record.number)
            values = {name: value for name, value in asdict(record).items() if name != "study"}
            session.add(AdapterRow(study_id=changed_study(session, record.study)[0], **values))

    def last_version(self, name: str) -> int:
        """Return the highest version ever given to ``name``, deleted ones included; 0 where there is none."""
        with self._sessions.reading() as session:
            return session.scalar(select(func.max(AdapterRow.version)).where(AdapterRow.name == name)) or 0

    def all(self, name: str | None = None) -> tuple[AdapterRecord, ...]:
        """Return every version, or those of ``name``, by name and version; deleted ones are left out."""
        with self._sessions.reading() as session:
            query = select(*columns(AdapterRow, AdapterRecord, study=StudyRow.name)).join(StudyRow)
            query = query.where(AdapterRow.stage != Stage.DELETED)
            if name is not None:
                query = query.where(AdapterRow.name == name)
            rows = session.execute(query.order_by(AdapterRow.name, AdapterRow.version))
            return tuple(AdapterRecord(*row) for row in rows)

    def change_stages(self, name: str, changes: Mapping[int, tuple[Stage, Stage]]) -> bool:
        """Move versions of ``name`` from one stage to another: all of them in the order given, or none.

        Args:
            name: The adapter.
            changes: Version to (the stage it is believed to have, the stage it gets).

        Returns:
            Whether it was done; False where one of the versions no longer has the stage it was believed to have.
        """
        with self._sessions.writing() as session:
            rows = {row.version: row for row in session.scalars(select(AdapterRow).where(AdapterRow.name == name))}
            if any(version not in rows or rows[version].stage != old for version, (old, _) in changes.items()):
                return False
            for version, (_, new) in changes.items():
                rows[version].stage = new
                session.flush()
            return True
