"""Shared parts of all queries: finding rows, and turning them into records."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Executable, bindparam, select, update
from sqlalchemy.orm import Session

from sweeper.errors import StudyStateError
from sweeper.store.connection import Transactions
from sweeper.store.tables import Base, StudyRow, TrialRow
from sweeper.store.types import SearchText

R = TypeVar("R")

_SHOWN = 200
"""Characters of an unknown name that are compared and shown: no known one is longer."""

# Made once: making a statement takes longer than executing it, and many are executed while others wait for the lock.
_STUDY = select(StudyRow.id).where(StudyRow.name == bindparam("name", type_=SearchText))
_STUDIES: Any = StudyRow.__table__
_COUNT = (
    update(_STUDIES)
    .where(_STUDIES.c.name == bindparam("study", type_=SearchText))
    .values(changes=_STUDIES.c.changes + 1)
    .returning(_STUDIES.c.id, _STUDIES.c.changes)
)
_TRIAL = select(TrialRow).where(TrialRow.study_id == bindparam("study"), TrialRow.number == bindparam("number"))


class Queries:
    """The queries about one kind of record; each public method of a subclass is one transaction.

    Whatever is asked about a study raises ``StudyStateError`` if there is no such study, naming the nearest.
    """

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def _fetch(
        self,
        record: type[R],
        table: Any,
        *conditions: ColumnElement[bool],
        study: str | None = None,
        equal: Mapping[Any, Any] | None = None,
        order_by: Sequence[Any] = (),
        limit: int | None = None,
    ) -> tuple[R, ...]:
        """Return records of a study, or of all, in a separate transaction; the table has a column for each field.

        ``equal`` has the values of columns; None stands for any.
        """
        with self._transactions.reading() as session:
            query = select(*columns(table, record)).where(*conditions)
            if study is not None:
                query = query.where(table.study_id == study_id(session, study))
            query = query.where(*(column == value for column, value in (equal or {}).items() if value is not None))
            return as_records(session, query.order_by(*order_by).limit(limit), record)


def as_records(session: Session, query: Executable, record: type[R]) -> tuple[R, ...]:
    """Return the rows of a query that selects ``columns`` of a record, as such records."""
    return tuple(record(*row) for row in session.execute(query))


def columns(table: type[Base], record: type[Any], **computed: Any) -> list[ColumnElement[Any]]:
    """Return the columns of ``table`` for the fields of ``record``, in their order; ``computed`` gives the others.

    Selecting columns instead of objects keeps 100,000 rows cheap.
    """
    names = [field.name for field in fields(record)]
    return [(computed[name] if name in computed else getattr(table, name)).label(name) for name in names]


def now() -> datetime:
    """Return the present, aware, in UTC."""
    return datetime.now(UTC)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the nearest known name, or an empty string if none is near."""
    near = difflib.get_close_matches(name[:_SHOWN], list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def study_id(session: Session, name: str) -> int:
    """Return the key of study ``name``.

    Raises:
        StudyStateError: If there is none; names the nearest.
    """
    found = session.scalar(_STUDY, {"name": name})
    if found is None:
        known = session.scalars(select(StudyRow.name)).all()
        raise StudyStateError(f"no study {name[:_SHOWN]!r} in this database{did_you_mean(name, known)}")
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
    """Return the error of a trial that a study does not have."""
    return StudyStateError(f"study {study!r} has no trial {number}")
