"""Action queries."""

from __future__ import annotations

from dataclasses import asdict

from sweeper.retry import retried_methods
from sweeper.store.records import Action
from sweeper.store.rows import Queries
from sweeper.store.tables import ActionRow


@retried_methods()
class Actions(Queries):
    """The actions of a database: who did what, and when. They are never changed or deleted."""

    def add(self, action: Action) -> None:
        """Store an action."""
        with self._transactions.writing() as session:
            session.add(ActionRow(**asdict(action)))

    def all(self, *, study: str | None = None, adapter: str | None = None, limit: int = 1_000) -> tuple[Action, ...]:
        """Return at most ``limit`` actions, the latest first: on a study, on an adapter, or all."""
        equal = {ActionRow.study: study, ActionRow.adapter: adapter}
        return self._fetch(Action, ActionRow, equal=equal, order_by=[ActionRow.id.desc()], limit=limit)
