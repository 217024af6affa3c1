"""Integrity checks of the database file itself; only SQLite offers them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from sweeper.retry import retried_methods
from sweeper.store.rows import Queries

_MOST = 20
"""Faults that are reported; a damaged file has thousands."""


@retried_methods()
class Integrity(Queries):
    """What SQLite finds wrong with its file."""

    def faults(self) -> tuple[str, ...]:
        """Return what is damaged, in SQLite's words; empty if nothing is.

        Raises:
            DatabaseError: If the file is too damaged to be checked.
        """
        return tuple(str(line) for (line,) in self._pragma(f"quick_check({_MOST})") if line != "ok")

    def orphans(self) -> tuple[str, ...]:
        """Return the rows that refer to a missing row, in words."""
        found = self._pragma("foreign_key_check")[:_MOST]
        return tuple(f"row {row[1]} of {row[0]} refers to a row of {row[2]} that is not there" for row in found)

    def _pragma(self, name: str) -> list[Any]:
        if self._transactions.engine.dialect.name != "sqlite":
            return []
        with self._transactions.reading() as session:
            return list(session.execute(text(f"PRAGMA {name}")))
