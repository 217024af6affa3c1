"""Adapter queries; the rules of the registry are in ``sweeper.registry``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Executable, delete, func, select, update
from sqlalchemy.orm import Session

from sweeper.retry import retried_methods
from sweeper.store.records import Action, AdapterRecord, Stage
from sweeper.store.rows import Queries, as_records, changed_study, columns, trial_row
from sweeper.store.tables import ActionRow, AdapterRow, AliasRow, StudyRow


@retried_methods()
class Adapters(Queries):
    """The adapter versions of a database.

    A change takes the ``Action`` that it is part of: both are stored, or neither.
    """

    def add(self, record: AdapterRecord, action: Action | None = None) -> None:
        """Store a new version.

        Raises:
            StudyStateError: If its study or trial do not exist.
        """
        with self._transactions.writing() as session:
            trial_row(session, record.study, record.number)
            values = {name: value for name, value in asdict(record).items() if name != "study"}
            session.add(AdapterRow(study_id=changed_study(session, record.study)[0], **values))
            _record(session, action)

    def last_version(self, name: str) -> int:
        """Return the highest version ever given to ``name``, including deleted ones; 0 if there is none."""
        with self._transactions.reading() as session:
            return session.scalar(select(func.max(AdapterRow.version)).where(AdapterRow.name == name)) or 0

    def all(self, name: str | None = None) -> tuple[AdapterRecord, ...]:
        """Return every version that is not deleted, or those of ``name``, by name and version."""
        query = select(*columns(AdapterRow, AdapterRecord, study=StudyRow.name)).join(StudyRow)
        query = query.where(AdapterRow.stage != Stage.DELETED).order_by(AdapterRow.name, AdapterRow.version)
        with self._transactions.reading() as session:
            return as_records(session, query if name is None else query.where(AdapterRow.name == name), AdapterRecord)

    def change_stages(
        self, name: str, changes: Mapping[int, tuple[Stage, Stage]], action: Action | None = None
    ) -> bool:
        """Move versions of ``name`` from their expected stage to a new one: all of them in the order given, or none.

        A deleted version loses its aliases.

        Returns:
            Whether it was done; False if a version is no longer in its expected stage, or if an unexpected one is in
            production.
        """
        with self._transactions.writing() as session:
            rows = {row.version: row for row in session.scalars(select(AdapterRow).where(AdapterRow.name == name))}
            if any(version not in rows or rows[version].stage != old for version, (old, _) in changes.items()):
                return False
            others = any(row.stage is Stage.PRODUCTION and row.version not in changes for row in rows.values())
            if others and any(new is Stage.PRODUCTION for _, new in changes.values()):
                return False
            for version, (_, new) in changes.items():
                rows[version].stage = new
                session.flush()
                if new is Stage.DELETED:
                    session.execute(delete(AliasRow).where(AliasRow.name == name, AliasRow.version == version))
            _record(session, action)
            return True

    def describe(
        self,
        name: str,
        version: int,
        action: Action | None = None,
        *,
        tags: Sequence[str] | None = None,
        note: str | None = None,
    ) -> bool:
        """Replace a version's tags, its note, or both; return whether there is such a version."""
        values = {key: value for key, value in (("tags", tags), ("note", note)) if value is not None}
        return self._change(update(AdapterRow).where(*_is(name, version)).values(**values), AdapterRow.id, action)

    def aliases(self, name: str | None = None) -> dict[tuple[str, str], int]:
        """Return the version of every (adapter, alias), or of the aliases of one adapter, in order."""
        query = select(AliasRow.name, AliasRow.alias, AliasRow.version).order_by(AliasRow.name, AliasRow.alias)
        with self._transactions.reading() as session:
            rows = session.execute(query if name is None else query.where(AliasRow.name == name))
            return {(of, alias): version for of, alias, version in rows}

    def set_alias(self, name: str, alias: str, version: int, action: Action | None = None) -> bool:
        """Point an alias at a version; return whether there is such a version."""
        with self._transactions.writing() as session:
            if session.scalar(select(AdapterRow.id).where(*_is(name, version))) is None:
                return False
            session.merge(AliasRow(name=name, alias=alias, version=version))
            _record(session, action)
            return True

    def remove_alias(self, name: str, alias: str, version: int, action: Action | None = None) -> bool:
        """Remove an alias from the version it is expected to point at; return whether it did."""
        where = AliasRow.name == name, AliasRow.alias == alias, AliasRow.version == version
        return self._change(delete(AliasRow).where(*where), AliasRow.version, action)

    def _change(self, statement: Any, returning: Any, action: Action | None) -> bool:
        """Execute a statement, and store the action if any row was affected; return whether one was."""
        changing: Executable = statement.returning(returning)
        with self._transactions.writing() as session:
            found = session.execute(changing).all()
            if found:
                _record(session, action)
            return bool(found)


def _is(name: str, version: int) -> tuple[Any, ...]:
    return AdapterRow.name == name, AdapterRow.version == version, AdapterRow.stage != Stage.DELETED


def _record(session: Session, action: Action | None) -> None:
    if action is not None:
        session.add(ActionRow(**asdict(action)))
