"""Artifact queries: the files of trials, as they were written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import delete
from sqlalchemy.orm import Session

from sweeper.retry import retried_methods
from sweeper.store.records import Artifact
from sweeper.store.rows import Queries, now, study_id
from sweeper.store.tables import ArtifactRow


@retried_methods()
class Artifacts(Queries):
    """The files of the trials of a database; those that older versions of sweeper wrote are missing."""

    def all(self, study: str, number: int | None = None) -> tuple[Artifact, ...]:
        """Return the files of a study's trials, or of one of them, by trial and path."""
        equal, order = {ArtifactRow.number: number}, [ArtifactRow.number, ArtifactRow.path]
        return self._fetch(Artifact, ArtifactRow, study=study, equal=equal, order_by=order)

    def replace(self, study: str, number: int, artifacts: Sequence[Artifact]) -> None:
        """Store the files of a trial in place of those that were stored."""
        with self._transactions.writing(study) as session:
            replace_files(session, study_id(session, study), number, artifacts)

    def forget(self, study: str, number: int) -> None:
        """Forget the files of a trial, which are about to be removed or changed."""
        self.replace(study, number, ())


def replace_files(session: Session, key: int, number: int, artifacts: Sequence[Artifact]) -> None:
    """Store, within a transaction, the files of a trial in place of those that were stored."""
    session.execute(delete(ArtifactRow).where(ArtifactRow.study_id == key, ArtifactRow.number == number))
    at = now()
    session.add_all(ArtifactRow(study_id=key, written_at=at, **asdict(each)) for each in artifacts)
