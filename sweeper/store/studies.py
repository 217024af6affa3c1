"""Study queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import select

from sweeper import __version__
from sweeper.config.study import StudyConfig
from sweeper.errors import StudyStateError
from sweeper.retry import retried_methods
from sweeper.store.records import Action, StudyRecord, StudyState
from sweeper.store.rows import Queries, as_records, changed_study, columns, now, study_id
from sweeper.store.tables import ActionRow, EventRow, StudyRow


@retried_methods()
class Studies(Queries):
    """The studies of a database."""

    def create(
        self,
        name: str,
        *,
        file_name: str,
        file_text: str,
        config: Mapping[str, Any],
        space: Mapping[str, Any],
        seed: int,
        packages: Mapping[str, str],
        data_sha256: Mapping[str, str],
        base_model: str,
        base_model_fingerprint: str,
        at: datetime | None = None,
    ) -> StudyRecord:
        """Store a new study, running from now on, and return it. The arguments are ``StudyRecord``'s.

        ``at`` is when it begins, by default now. A study of that name that began at the same moment is this one,
        stored before the connection was lost.

        Raises:
            StudyStateError: If the name is taken.
        """
        with self._transactions.writing() as session:
            began = session.scalar(select(StudyRow.created_at).where(StudyRow.name == name))
            if began is not None and began != at:
                raise StudyStateError(f"study {name!r} exists already: resume it, or give the new one another name")
            if began is None:
                at = at or now()
                session.add(
                    StudyRow(
                        name=name,
                        state=StudyState.RUNNING,
                        created_at=at,
                        started_at=at,
                        file_name=file_name,
                        file_text=file_text,
                        config=config,
                        space=space,
                        seed=seed,
                        sweeper_version=__version__,
                        packages=packages,
                        data_sha256=data_sha256,
                        base_model=base_model,
                        base_model_fingerprint=base_model_fingerprint,
                    )
                )
        return self.get(name)

    def get(self, name: str) -> StudyRecord:
        """Return study ``name``."""
        with self._transactions.reading() as session:
            query = select(*columns(StudyRow, StudyRecord)).where(StudyRow.id == study_id(session, name))
            return as_records(session, query, StudyRecord)[0]

    def find(self, name: str) -> StudyRecord | None:
        """Return study ``name``, or None if there is none."""
        return next(iter(self._fetch(StudyRecord, StudyRow, StudyRow.name == name)), None)

    def all(self) -> tuple[StudyRecord, ...]:
        """Return every study, oldest first."""
        return self._fetch(StudyRecord, StudyRow, order_by=[StudyRow.id])

    def set_config(self, name: str, config: Mapping[str, Any]) -> None:
        """Replace the resolved configuration of a study whose budget was changed."""
        self._change(name, None, config=dict(config))

    def set_tags(self, name: str, tags: Sequence[str], action: Action) -> None:
        """Replace the tags of a study, and record who did so."""
        self._change(name, action, tags=list(tags))

    def archive(self, name: str, action: Action, *, archived: bool) -> None:
        """Hide a study, or show it again, and record who did so; nothing of the study is deleted."""
        self._change(name, action, archived_at=now() if archived else None)

    def _change(self, name: str, action: Action | None, **values: Any) -> None:
        with self._transactions.writing() as session:
            row = session.get_one(StudyRow, changed_study(session, name)[0])
            for column, value in values.items():
                setattr(row, column, value)
            if action is not None:
                session.add(ActionRow(**asdict(action)))

    def set_state(self, name: str, state: StudyState) -> None:
        """Store that a study runs again, is paused, was interrupted or has finished, and the event of it."""
        with self._transactions.writing() as session:
            row = session.get_one(StudyRow, changed_study(session, name)[0])
            at = now()
            message = f"{row.state} -> {state}"
            row.state = state
            if state is StudyState.RUNNING:
                row.started_at, row.ended_at = at, None
            elif state is not StudyState.PAUSED:
                row.ended_at = at
            session.add(EventRow(study_id=row.id, at=at, kind="state", message=message))


def stored_config(study: StudyRecord) -> StudyConfig:
    """Return the configuration of a stored study.

    Raises:
        StudyStateError: If another version of sweeper stored it, with other settings.
    """
    return read_config(study.name, study.config)


def read_config(name: str, data: Mapping[str, Any]) -> StudyConfig:
    """Return the configuration stored as ``data`` for a study; see ``stored_config``."""
    try:
        return StudyConfig.model_validate(data)
    except ValidationError as error:
        raise StudyStateError(f"study {name!r} was stored by another version of sweeper; run it again") from error
