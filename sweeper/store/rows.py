"""Finding rows and turning them into records: what all questions share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from sweeper.errors import StudyStateError
from sweeper.store.tables import Base, StudyRow, TrialRow

_LOOKED_AT = 200
"""Characters of an unknown name that count: no known one is longer."""


def now() -> datetime:
    """Return the present, aware, in UTC."""
    return datetime.now(UTC)


def columns(table: type[Base], record: type[Any], **computed: Any) -> list[ColumnElement[Any]]:
    """Return the columns of ``table`` that fill the fields of ``record``, by name; ``computed`` gives the others.

    Selecting columns instead of objects keeps 100,000 rows cheap.
    """
    names = [field.name for field in fields(record)]
    return [(computed[name] if name in computed else getattr(table, name)).label(name) for name in names]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the nearest known name, or an empty string where none is near."""
    near = difflib.get_close_matches(name[:_LOOKED_AT], list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def study_id(session: Session, name: str) -> int:
    """Return the key of study ``name``.

    Raises:
        StudyStateError: If there is none; names the nearest.
    """
    found = session.scalar(select(StudyRow.id).where(StudyRow.name == name))
    if found is None:
        known = session.scalars(select(StudyRow.name)).all()
        raise StudyStateError(f"no study {name[:_LOOKED_AT]!r} in this database{did_you_mean(name, known)}")
    return found


def changed_study(session: Session, name: str) -> tuple[int, int]:
    """Count a change of study ``name``, and return its key and the number of the change.

    Raises:
        StudyStateError: If there is none; names the nearest.
    """
    counting = update(StudyRow).where(StudyRow.name == name).values(changes=StudyRow.changes + 1)
    found = session.execute(
        counting.returning(StudyRow.id, StudyRow.changes), execution_options={"synchronize_session": False}
    ).one_or_none()
    return (study_id(session, name), 0) if found is None else (found[0], found[1])


def trial_row(session: Session, study: str, number: int) -> TrialRow:
    """Return the row of a trial.

    Raises:
        StudyStateError: If study or trial do not exist.
    """
    where = TrialRow.study_id == study_id(session, study), TrialRow.number == number
    row = session.scalar(select(TrialRow).where(*where))
    if row is None:
        raise StudyStateError(f"study {study!r} has no trial {number}")
    return row
