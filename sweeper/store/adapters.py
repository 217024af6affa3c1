"""Questions about registered adapters; the rules of the registry are in ``sweeper.registry``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from sweeper.retry import retried_methods
from sweeper.store.connection import Transactions
from sweeper.store.records import Action, AdapterRecord, Stage
from sweeper.store.rows import changed_study, columns, trial_row
from sweeper.store.tables import ActionRow, AdapterRow, AliasRow, StudyRow


@retried_methods()
class Adapters:
    """The adapter versions of a database.

    What changes one takes the ``Action`` that it is: both are stored, or neither.
    """

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

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
        """Return the highest version ever given to ``name``, deleted ones included; 0 where there is none."""
        with self._transactions.reading() as session:
            return session.scalar(select(func.max(AdapterRow.version)).where(AdapterRow.name == name)) or 0

    def all(self, name: str | None = None) -> tuple[AdapterRecord, ...]:
        """Return every version, or those of ``name``, by name and version; deleted ones are left out."""
        with self._transactions.reading() as session:
            query = select(*columns(AdapterRow, AdapterRecord, study=StudyRow.name)).join(StudyRow)
            query = query.where(AdapterRow.stage != Stage.DELETED)
            if name is not None:
                query = query.where(AdapterRow.name == name)
            rows = session.execute(query.order_by(AdapterRow.name, AdapterRow.version))
            return tuple(AdapterRecord(*row) for row in rows)

    def change_stages(
        self, name: str, changes: Mapping[int, tuple[Stage, Stage]], action: Action | None = None
    ) -> bool:
        """Move versions of ``name`` from one stage to another: all of them in the order given, or none.

        A deleted version loses its aliases.

        Args:
            name: The adapter.
            changes: Version to (the stage it is believed to have, the stage it gets).
            action: What somebody did by this.

        Returns:
            Whether it was done; False where one of the versions no longer has the stage it was believed to have, or
            where another one is in production that was not believed to be.
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
        """Replace a version's tags, its note, or both; tell whether there is such a version."""
        values = {key: value for key, value in (("tags", tags), ("note", note)) if value is not None}
        with self._transactions.writing() as session:
            where = AdapterRow.name == name, AdapterRow.version == version, AdapterRow.stage != Stage.DELETED
            found = session.execute(update(AdapterRow).where(*where).values(**values).returning(AdapterRow.id)).all()
            if found:
                _record(session, action)
            return bool(found)

    def aliases(self, name: str | None = None) -> dict[tuple[str, str], int]:
        """Return the version of every (adapter, alias), or of the aliases of one adapter, in order."""
        with self._transactions.reading() as session:
            query = select(AliasRow.name, AliasRow.alias, AliasRow.version).order_by(AliasRow.name, AliasRow.alias)
            if name is not None:
                query = query.where(AliasRow.name == name)
            return {(of, alias): version for of, alias, version in session.execute(query)}

    def set_alias(self, name: str, alias: str, version: int, action: Action | None = None) -> bool:
        """Let an alias mean a version from now on; tell whether there is such a version."""
        with self._transactions.writing() as session:
            where = AdapterRow.name == name, AdapterRow.version == version, AdapterRow.stage != Stage.DELETED
            if session.scalar(select(AdapterRow.id).where(*where)) is None:
                return False
            session.merge(AliasRow(name=name, alias=alias, version=version))
            _record(session, action)
            return True

    def remove_alias(self, name: str, alias: str, version: int, action: Action | None = None) -> bool:
        """Take an alias from the version that it is believed to mean; tell whether it did."""
        with self._transactions.writing() as session:
            where = AliasRow.name == name, AliasRow.alias == alias, AliasRow.version == version
            found = session.execute(delete(AliasRow).where(*where).returning(AliasRow.version)).all()
            if found:
                _record(session, action)
            return bool(found)


def _record(session: Session, action: Action | None) -> None:
    if action is not None:
        session.add(ActionRow(**asdict(action)))
