"""Questions about orders: what people ask of the runner of a study, and what became of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select, update

from sweeper.errors import StudyStateError
from sweeper.retry import retried_methods
from sweeper.store.connection import Transactions
from sweeper.store.records import Order, OrderKind, OrderState
from sweeper.store.rows import changed_study, columns, now, study_id
from sweeper.store.tables import ORDER_DATA_LIMIT, ActionRow, EventRow, OrderRow, StudyRow


@retried_methods()
class Orders:
    """The orders of a database."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def add(
        self,
        study: str,
        kind: OrderKind,
        *,
        actor: str,
        message: str,
        number: int | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> int:
        """Store an order, and that somebody gave it; return the order's number.

        Args:
            study: The study whose runner is asked.
            kind: What is asked.
            actor: Who asks.
            message: What is asked, in words.
            number: The trial that it is about, if any.
            data: What is asked, by name.

        Raises:
            StudyStateError: If there is no such study, or the data are too large to be stored whole.
        """
        asked = dict(data or {})
        if len(json.dumps(asked)) > ORDER_DATA_LIMIT:
            raise StudyStateError(f"an order may hold {ORDER_DATA_LIMIT} characters at most; it was not given")
        with self._transactions.writing(study) as session:
            key, _ = changed_study(session, study)
            at = now()
            row = OrderRow(
                study_id=key, number=number, at=at, actor=actor, kind=kind, data=asked, state=OrderState.WAITING
            )
            session.add(row)
            session.flush()
            action = ActionRow(at=at, actor=actor, kind=kind.value, study=study, number=number, message=message)
            action.data = {"order": row.id, **asked}
            session.add(action)
            return row.id

    def waiting(self, study: str) -> tuple[Order, ...]:
        """Return the orders of a study that wait for an answer, the first given first; cheap enough for every step."""
        with self._transactions.reading() as session:
            query = select(*columns(OrderRow, Order)).join(StudyRow, StudyRow.id == OrderRow.study_id)
            query = query.where(StudyRow.name == study, OrderRow.state == OrderState.WAITING)
            return tuple(Order(**row._mapping) for row in session.execute(query.order_by(OrderRow.id)))

    def news(self, study: str, *, after: int) -> tuple[Order, ...]:
        """Return the orders that wait for an answer, and all with a number above ``after``; the first given first.

        Cheap enough for every step.
        """
        with self._transactions.reading() as session:
            query = select(*columns(OrderRow, Order)).join(StudyRow, StudyRow.id == OrderRow.study_id)
            new = (OrderRow.state == OrderState.WAITING) | (OrderRow.id > after)
            query = query.where(StudyRow.name == study, new).order_by(OrderRow.id)
            return tuple(Order(**row._mapping) for row in session.execute(query))

    def latest(self, study: str) -> int:
        """Return the number of the latest order that was answered; 0 where none was."""
        with self._transactions.reading() as session:
            query = select(func.max(OrderRow.id)).join(StudyRow, StudyRow.id == OrderRow.study_id)
            found = session.scalar(query.where(StudyRow.name == study, OrderRow.state != OrderState.WAITING))
            return int(found or 0)

    def answer(self, study: str, order: int, state: OrderState, text: str) -> bool:
        """Store what became of an order, as an event too; return whether it was still waiting: none is answered twice.

        Raises:
            StudyStateError: If there is no such study.
        """
        with self._transactions.writing(study) as session:
            key, _ = changed_study(session, study)
            at = now()
            where = OrderRow.study_id == key, OrderRow.id == order, OrderRow.state == OrderState.WAITING
            answering = update(OrderRow).where(*where).values(state=state, answered_at=at, answer=text)
            asked = session.execute(
                answering.returning(OrderRow.number, OrderRow.kind, OrderRow.actor),
                execution_options={"synchronize_session": False},
            ).one_or_none()
            if asked is None:
                return False
            message = f"{asked.kind.value}, asked by {asked.actor}: {state.value}: {text}"
            session.add(EventRow(study_id=key, number=asked.number, at=at, kind="order", message=message))
            return True

    def get(self, study: str, order: int) -> Order:
        """Return one order.

        Raises:
            StudyStateError: If study or order do not exist.
        """
        with self._transactions.reading() as session:
            query = select(*columns(OrderRow, Order))
            query = query.where(OrderRow.study_id == study_id(session, study), OrderRow.id == order)
            row = session.execute(query).one_or_none()
        if row is None:
            raise StudyStateError(f"study {study!r} was never given an order {order}")
        return Order(**row._mapping)

    def all(self, study: str, *, limit: int = 1_000) -> tuple[Order, ...]:
        """Return the orders of a study, the latest first; at most ``limit``.

        Raises:
            StudyStateError: If there is no such study.
        """
        with self._transactions.reading() as session:
            query = select(*columns(OrderRow, Order)).where(OrderRow.study_id == study_id(session, study))
            rows = session.execute(query.order_by(OrderRow.id.desc()).limit(limit))
            return tuple(Order(**row._mapping) for row in rows)
