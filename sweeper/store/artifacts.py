"""Questions about the files of trials: what each was when it was written."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from sweeper.retry import retried_methods
from sweeper.store.connection import Transactions
from sweeper.store.records import Artifact
from sweeper.store.rows import columns, now, study_id
from sweeper.store.tables import ArtifactRow


@retried_methods()
class Artifacts:
    """The files of the trials of a database; of trials from before there is none."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def all(self, study: str, number: int | None = None) -> tuple[Artifact, ...]:
        """Return the files of a study's trials, or of one of them, by trial and path.

        Raises:
            StudyStateError: If there is no such study.
        """
        with self._transactions.reading() as session:
            query = select(*columns(ArtifactRow, Artifact)).where(ArtifactRow.study_id == study_id(session, study))
            if number is not None:
                query = query.where(ArtifactRow.number == number)
            rows = session.execute(query.order_by(ArtifactRow.number, ArtifactRow.path))
            return tuple(Artifact(*row) for row in rows)

    def replace(self, study: str, number: int, artifacts: Sequence[Artifact]) -> None:
        """Store the files of a trial in place of those that were stored.

        Raises:
            StudyStateError: If there is no such study.
        """
        with self._transactions.writing() as session:
            key = study_id(session, study)
            forget_files(session, key, number)
            put_files(session, key, artifacts)

    def forget(self, study: str, number: int) -> None:
        """Forget the files of a trial, which are to be removed or to change."""
        self.replace(study, number, ())


def forget_files(session: Session, key: int, number: int) -> None:
    """Forget, within a transaction, the files of a trial."""
    session.execute(delete(ArtifactRow).where(ArtifactRow.study_id == key, ArtifactRow.number == number))


def put_files(session: Session, key: int, artifacts: Sequence[Artifact]) -> None:
    """Store, within a transaction, files of which nothing is stored."""
    at = now()
    for each in artifacts:
        session.add(
            ArtifactRow(
                study_id=key,
                number=each.number,
                path=each.path,
                bytes=each.bytes,
                sha256=each.sha256,
                written_at=at,
            )
        )
