"""Alembic's environment: our tables only, on the connection that ``runner`` gives it."""

from __future__ import annotations

from typing import Any

from alembic import context

from sweeper.store.migrations import VERSION_TABLE
from sweeper.store.tables import PREFIX, Base


def include_object(_item: Any, name: str | None, kind: str, _reflected: bool, _compare_to: Any) -> bool:
    """Say whether an object is ours; Optuna's tables in the same file are not."""
    return kind != "table" or (name or "").startswith(PREFIX)


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    include_object=include_object,
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
