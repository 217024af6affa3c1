"""Whether the database file itself is sound."""

from __future__ import annotations

from sqlalchemy import text

from sweeper.retry import retried_methods
from sweeper.store.connection import Transactions

_MOST = 20
"""Faults that are told; a damaged file has thousands."""


@retried_methods()
class Integrity:
    """What a database says of itself; only SQLite can be asked."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def faults(self) -> tuple[str, ...]:
        """Return what SQLite finds damaged, in its words; empty where all is well.

        Raises:
            DatabaseError: If the file is too damaged to be asked.
        """
        if self._transactions.engine.dialect.name != "sqlite":
            return ()
        with self._transactions.reading() as session:
            found = session.scalars(text(f"PRAGMA quick_check({_MOST})")).all()
        return tuple(str(line) for line in found if line != "ok")

    def orphans(self) -> tuple[str, ...]:
        """Return the rows that refer to a row which is not there, in words."""
        if self._transactions.engine.dialect.name != "sqlite":
            return ()
        with self._transactions.reading() as session:
            found = session.execute(text("PRAGMA foreign_key_check")).all()
        return tuple(f"row {row[1]} of {row[0]} refers to a row of {row[2]} that is not there" for row in found[:_MOST])
