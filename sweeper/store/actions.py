"""Questions about what people did."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import select

from sweeper.retry import retried_methods
from sweeper.store.connection import Transactions
from sweeper.store.records import Action
from sweeper.store.rows import columns
from sweeper.store.tables import ActionRow


@retried_methods()
class Actions:
    """The actions of a database: who did what, and when. They are never changed or deleted."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def add(self, action: Action) -> None:
        """Store what somebody did."""
        with self._transactions.writing() as session:
            session.add(ActionRow(**asdict(action)))

    def all(self, *, study: str | None = None, adapter: str | None = None, limit: int = 1_000) -> tuple[Action, ...]:
        """Return what was done, the latest first: to a study, to an adapter, or to all; at most ``limit``."""
        with self._transactions.reading() as session:
            query = select(*columns(ActionRow, Action))
            if study is not None:
                query = query.where(ActionRow.study == study)
            if adapter is not None:
                query = query.where(ActionRow.adapter == adapter)
            rows = session.execute(query.order_by(ActionRow.id.desc()).limit(limit))
            return tuple(Action(**row._mapping) for row in rows)
