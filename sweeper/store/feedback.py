"""Feedback queries: ratings and corrections of answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from sqlalchemy import case, func, select

from sweeper.errors import DataError
from sweeper.retry import retried_methods
from sweeper.store.records import Feedback
from sweeper.store.rows import Queries
from sweeper.store.tables import EXAMPLE_LIMIT, ActionRow, FeedbackRow

GIVEN = "feedback"
"""The kind of action that giving feedback is."""


@dataclass(frozen=True)
class FeedbackCounts:
    """How much feedback a version, or a base model, has."""

    good: int = 0
    bad: int = 0
    corrections: int = 0


@retried_methods()
class FeedbackStore(Queries):
    """The feedback of a database; it is only ever added to."""

    def add(self, feedback: Feedback) -> None:
        """Store feedback on an answer, and the action of giving it.

        Raises:
            DataError: If it says nothing, or a text is too long to be kept whole.
        """
        if feedback.good is None and feedback.correction is None:
            raise DataError("feedback is a thumb or a correction; this has neither")
        for name in ("prompt", "answer", "correction"):
            if len(getattr(feedback, name) or "") > EXAMPLE_LIMIT:
                raise DataError(f"the {name} has more than {EXAMPLE_LIMIT:,} characters, which feedback cannot keep")
        with self._transactions.writing() as session:
            session.add(FeedbackRow(**asdict(feedback)))
            same = {name: getattr(feedback, name) for name in ("at", "actor", "adapter", "version")}
            session.add(ActionRow(kind=GIVEN, message=_message(feedback), **same))

    def all(
        self, *, adapter: str | None = None, version: int | None = None, limit: int | None = None
    ) -> tuple[Feedback, ...]:
        """Return at most ``limit`` pieces of feedback, the latest first: on an adapter, one of its versions, or all."""
        equal = {FeedbackRow.adapter: adapter, FeedbackRow.version: version}
        return self._fetch(Feedback, FeedbackRow, equal=equal, order_by=[FeedbackRow.id.desc()], limit=limit)

    def counts(self) -> Mapping[tuple[str | None, int | None], FeedbackCounts]:
        """Return how much feedback every version has; that of bare base models is under (None, None)."""
        numbers = (
            func.sum(case((FeedbackRow.good.is_(True), 1), else_=0)),
            func.sum(case((FeedbackRow.good.is_(False), 1), else_=0)),
            func.count(FeedbackRow.correction),
        )
        key = FeedbackRow.adapter, FeedbackRow.version
        with self._transactions.reading() as session:
            rows = session.execute(select(*key, *numbers).group_by(*key))
            return {(name, version): FeedbackCounts(*map(int, found)) for name, version, *found in rows}


def _message(feedback: Feedback) -> str:
    thumb = {True: "thumb up", False: "thumb down", None: ""}[feedback.good]
    parts = [thumb, "correction" * (feedback.correction is not None)]
    subject = "the bare base model" if feedback.adapter is None else f"{feedback.adapter} v{feedback.version}"
    return f"{' and '.join(part for part in parts if part)} for an answer of {subject}"
