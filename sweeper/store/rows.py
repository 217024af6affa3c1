"""Finding rows and turning them into records: what all questions share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, bindparam, select, update
from sqlalchemy.orm import Session

from sweeper.errors import StudyStateError
from sweeper.store.tables import Base, StudyRow, TrialRow
from sweeper.store.types import Sought

_LOOKED_AT = 200
"""Characters of an unknown name that count: no known one is longer."""

# Made once: making a statement takes longer than executing it, and many are executed while others wait for the lock.
_STUDY = select(StudyRow.id).where(StudyRow.name == bindparam("name", type_=Sought))
_STUDIES: Any = StudyRow.__table__
_COUNT = (
    update(_STUDIES)
    .where(_STUDIES.c.name == bindparam("study", type_=Sought))
    .values(changes=_STUDIES.c.changes + 1)
    .returning(_STUDIES.c.id, _STUDIES.c.changes)
)
_TRIAL = select(TrialRow).where(TrialRow.study_id == bindparam("study"), TrialRow.number == bindparam("number"))


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
    found = session.scalar(_STUDY, {"name": name})
    if found is None:
        known = session.scalars(select(StudyRow.name)).all()
        raise StudyStateError(f"no study {name[:_LOOKED_AT]!r} in this database{did_you_mean(name, known)}")
    return found


def changed_study(session: Session, name: str) -> tuple[int, int]:
    """Count a change of study ``name``, and return its key and the number of the change.

    Raises:
        StudyStateError: If there is none; names the nearest.
    """
    found = session.connection().execute(_COUNT, {"study": name}).one_or_none()
    return (study_id(session, name), 0) if found is None else (found[0], found[1])


def trial_row(session: Session, study: str, number: int) -> TrialRow:
    """Return the row of a trial.

    Raises:
        StudyStateError: If study or trial do not exist.
    """
    row = session.scalar(_TRIAL, {"study": study_id(session, study), "number": number})
    if row is None:
        raise no_trial(study, number)
    return row


def no_trial(study: str, number: int) -> StudyStateError:
    """Return what is to be raised where a study has no such trial."""
    return StudyStateError(f"study {study!r} has no trial {number}")
