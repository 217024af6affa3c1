"""Questions about what people thought of answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from sqlalchemy import case, func, select

from sweeper.errors import DataError
from sweeper.retry import retried_methods
from sweeper.store.connection import Transactions
from sweeper.store.records import Feedback
from sweeper.store.rows import columns
from sweeper.store.tables import EXAMPLE_LIMIT, ActionRow, FeedbackRow

GIVEN = "feedback"
"""The kind of the action that giving feedback is."""


@dataclass(frozen=True)
class FeedbackCounts:
    """How much feedback a version, or a base model, has."""

    good: int = 0
    bad: int = 0
    corrections: int = 0


@retried_methods()
class FeedbackStore:
    """The feedback of a database; it is only ever added to."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def add(self, feedback: Feedback) -> None:
        """Store what a person thought of an answer, and that they said so.

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
            session.add(
                ActionRow(
                    at=feedback.at,
                    actor=feedback.actor,
                    kind=GIVEN,
                    adapter=feedback.adapter,
                    version=feedback.version,
                    message=_told(feedback),
                )
            )

    def all(
        self, *, adapter: str | None = None, version: int | None = None, limit: int | None = None
    ) -> tuple[Feedback, ...]:
        """Return feedback, the latest first: to an adapter, to one of its versions, or to all, at most ``limit``."""
        with self._transactions.reading() as session:
            query = select(*columns(FeedbackRow, Feedback))
            if adapter is not None:
                query = query.where(FeedbackRow.adapter == adapter)
            if version is not None:
                query = query.where(FeedbackRow.version == version)
            rows = session.execute(query.order_by(FeedbackRow.id.desc()).limit(limit))
            return tuple(Feedback(**row._mapping) for row in rows)

    def counts(self) -> Mapping[tuple[str | None, int | None], FeedbackCounts]:
        """Return how much feedback every version has; under (None, None) that of bare base models."""
        numbers = (
            func.sum(case((FeedbackRow.good.is_(True), 1), else_=0)),
            func.sum(case((FeedbackRow.good.is_(False), 1), else_=0)),
            func.count(FeedbackRow.correction),
        )
        key = FeedbackRow.adapter, FeedbackRow.version
        with self._transactions.reading() as session:
            rows = session.execute(select(*key, *numbers).group_by(*key))
            return {(name, version): FeedbackCounts(*map(int, found)) for name, version, *found in rows}


def _told(feedback: Feedback) -> str:
    thumb = {True: "thumb up", False: "thumb down", None: ""}[feedback.good]
    parts = [thumb, "correction" * (feedback.correction is not None)]
    subject = "the bare base model" if feedback.adapter is None else f"{feedback.adapter} v{feedback.version}"
    return f"{' and '.join(part for part in parts if part)} for an answer of {subject}"
