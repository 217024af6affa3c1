"""Order queries: what people ask of the runner of a study, and its answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select, update

from sweeper.errors import StudyStateError
from sweeper.retry import retried_methods
from sweeper.store.records import Order, OrderKind, OrderState
from sweeper.store.rows import Queries, as_records, changed_study, columns, now
from sweeper.store.tables import ORDER_DATA_LIMIT, ActionRow, EventRow, OrderRow, StudyRow


@retried_methods()
class Orders(Queries):
    """The orders of a database."""

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
        """Store an order to the runner of a study, and the action of giving it; return the order's number.

        ``message`` says what is asked in words, ``data`` by name.

        Raises:
            StudyStateError: If there is no such study, or the data are too large to be stored whole.
        """
        asked = dict(data or {})
        if len(json.dumps(asked)) > ORDER_DATA_LIMIT:
            raise StudyStateError(f"an order may hold {ORDER_DATA_LIMIT} characters at most; it was not given")
        with self._transactions.writing(study) as session:
            key, _ = changed_study(session, study)
            common = {"at": now(), "actor": actor, "number": number}
            row = OrderRow(study_id=key, kind=kind, data=asked, state=OrderState.WAITING, **common)
            session.add(row)
            session.flush()
            data = {"order": row.id, **asked}
            session.add(ActionRow(kind=kind.value, study=study, message=message, data=data, **common))
            return row.id

    def waiting(self, study: str) -> tuple[Order, ...]:
        """Return the unanswered orders of a study, oldest first; cheap enough for every step."""
        return self.news(study, after=None)

    def news(self, study: str, *, after: int | None) -> tuple[Order, ...]:
        """Return the unanswered orders of a study, and all with a number above ``after``; oldest first.

        Cheap enough for every step: a study that does not exist has none.
        """
        new = OrderRow.state == OrderState.WAITING
        with self._transactions.reading() as session:
            query = select(*columns(OrderRow, Order)).join(StudyRow, StudyRow.id == OrderRow.study_id)
            query = query.where(StudyRow.name == study, new if after is None else new | (OrderRow.id > after))
            return as_records(session, query.order_by(OrderRow.id), Order)

    def latest(self, study: str) -> int:
        """Return the number of the latest answered order; 0 if there is none."""
        with self._transactions.reading() as session:
            query = select(func.max(OrderRow.id)).join(StudyRow, StudyRow.id == OrderRow.study_id)
            found = session.scalar(query.where(StudyRow.name == study, OrderRow.state != OrderState.WAITING))
            return int(found or 0)

    def answer(self, study: str, order: int, state: OrderState, text: str) -> bool:
        """Store the answer to an order, and the event of it; return False if it had one: none is answered twice."""
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
        found = self._fetch(Order, OrderRow, OrderRow.id == order, study=study)
        if not found:
            raise StudyStateError(f"study {study!r} was never given an order {order}")
        return found[0]

    def all(self, study: str, *, limit: int = 1_000) -> tuple[Order, ...]:
        """Return at most ``limit`` orders of a study, the latest first."""
        return self._fetch(Order, OrderRow, study=study, order_by=[OrderRow.id.desc()], limit=limit)
