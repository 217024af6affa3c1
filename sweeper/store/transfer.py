"""Transfer of all rows, sweeper's and Optuna's, from an SQLite file to a server, compared row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, Integer, MetaData, String, Table, func, select, text

from sweeper.database_url import PostgresUrl
from sweeper.errors import DatabaseError
from sweeper.store.connection import BUSY_TIMEOUT_S, open_engine
from sweeper.store.migrations import VERSION_TABLE

Progress = Callable[[str, int, int], None]
"""Called with the current stage, the rows done and their total."""

_OF_THE_TARGET = frozenset({VERSION_TABLE, "sweeper_info", "alembic_version", "version_info"})
"""Tables that record the version of the others: each database keeps its own."""

_CHUNK = 2_000


@dataclass(frozen=True)
class _Pair:
    """A table in both databases, and how many rows it has."""

    source: Table
    target: Table
    rows: int


@contextmanager
def held_still(path: Path) -> Iterator[Connection]:
    """Yield a connection to an SQLite file that no other process writes meanwhile.

    Raises:
        DatabaseError: If it is locked, or cannot be read.
    """
    with (
        open_engine(path, busy_timeout_s=BUSY_TIMEOUT_S) as engine,
        engine.execution_options(sweeper_begin="IMMEDIATE").connect() as connection,
    ):
        connection.exec_driver_sql("SELECT 1")  # a transaction begins with the first statement
        yield connection


def transfer(source: Connection, server: PostgresUrl, progress: Progress) -> int:
    """Copy every row to a server and compare what arrived, in one transaction; return the number of rows.

    The server has the tables already. If it has these very rows, from an earlier interrupted call, nothing is copied.

    Raises:
        DatabaseError: If it has other rows, or what arrived differs: then nothing is stored.
    """
    with open_engine(server, busy_timeout_s=BUSY_TIMEOUT_S) as engine, engine.begin() as target:
        pairs = _pairs(source, target)
        target.execute(text(f"LOCK TABLE {', '.join(_quoted(target, p.target) for p in pairs)} IN EXCLUSIVE MODE"))
        there = any(target.scalar(select(func.count()).select_from(pair.target)) for pair in pairs)
        if not there:
            _copy(source, target, pairs, progress)
        different = _difference(source, target, pairs, progress)
        if different and there:
            raise DatabaseError(
                f"database {server} already holds studies ({different}): name an empty one; nothing was changed"
            )
        if different:
            raise DatabaseError(f"{different} in {server} after it was copied; nothing was stored there")
        for pair in pairs:
            _continue_numbering(target, pair.target)
        return sum(pair.rows for pair in pairs)


def _pairs(source: Connection, target: Connection) -> list[_Pair]:
    """Return the tables, in an order in which every row comes after those it refers to."""
    here, there = MetaData(), MetaData()
    here.reflect(source)
    there.reflect(target)
    mine, yours = set(here.tables) - _OF_THE_TARGET, set(there.tables) - _OF_THE_TARGET
    if mine - yours:
        raise DatabaseError(f"the new database has no tables {', '.join(sorted(mine - yours))}; nothing was copied")
    pairs = []
    for table in there.sorted_tables:
        if table.name in mine:
            former = here.tables[table.name]
            if set(former.c.keys()) != set(table.c.keys()):
                raise DatabaseError(f"table {table.name} has other columns in the new database; nothing was copied")
            rows = source.scalar(select(func.count()).select_from(former)) or 0
            pairs.append(_Pair(former, table, rows))
    return pairs


def _copy(source: Connection, target: Connection, pairs: list[_Pair], progress: Progress) -> None:
    done, total = 0, sum(pair.rows for pair in pairs)
    cursor: Any = target.connection.cursor()
    for pair in pairs:
        columns = ", ".join(_quoted(target, column) for column in pair.target.c)
        with cursor.copy(f"COPY {_quoted(target, pair.target)} ({columns}) FROM STDIN") as copy:
            for row in _rows(source, pair.source, pair.target):
                copy.write_row(row)
                done += 1
                if done % _CHUNK == 0:
                    progress("copying", done, total)
    progress("copying", done, total)


def _difference(source: Connection, target: Connection, pairs: list[_Pair], progress: Progress) -> str:
    """Return where the first differing row is; empty if there is none."""
    done, total = 0, sum(pair.rows for pair in pairs)
    for pair in pairs:
        both = zip_longest(_rows(source, pair.source, pair.target), _rows(target, pair.target, pair.target))
        for number, (mine, yours) in enumerate(both):
            if mine != yours:
                return f"row {number} of table {pair.target.name} differs"
            done += 1
            if done % _CHUNK == 0:
                progress("comparing", done, total)
    progress("comparing", done, total)
    return ""


def _rows(connection: Connection, table: Table, like: Table) -> Iterator[tuple[Any, ...]]:
    """Yield every row by its key, with the columns in the order of ``like``; text is ordered by its bytes."""
    order = [_by_bytes(connection, table.c[column.name]) for column in like.primary_key.columns]
    query = select(*(table.c[column.name] for column in like.c)).order_by(*order)
    with connection.execute(query.execution_options(yield_per=_CHUNK)) as found:
        for row in found:
            yield tuple(row)


def _by_bytes(connection: Connection, column: Column[Any]) -> Any:
    is_text = isinstance(column.type, String)
    return column.collate("C") if is_text and connection.dialect.name == "postgresql" else column


def _continue_numbering(target: Connection, table: Table) -> None:
    """Number new rows after those that were copied with their numbers."""
    for column in table.primary_key.columns:
        if isinstance(column.type, Integer):
            sequence = target.scalar(
                text("SELECT pg_get_serial_sequence(:table, :column)"),
                {"table": _quoted(target, table), "column": column.name},
            )
            last = target.scalar(select(func.max(column)))
            if sequence is not None and last is not None:
                target.execute(
                    text("SELECT setval(CAST(:sequence AS regclass), :last)"), {"sequence": sequence, "last": last}
                )


def _quoted(connection: Connection, item: Any) -> str:
    return connection.dialect.identifier_preparer.quote(item.name)


def checkpointed(path: Path) -> None:
    """Write the log of an SQLite file into it, unless another process reads it."""
    with open_engine(path, busy_timeout_s=BUSY_TIMEOUT_S) as engine, closing(engine.raw_connection()) as raw:
        raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
