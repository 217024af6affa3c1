"""How sweeper talks to its database: never creates a file by accident, and starts its transactions itself."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.orm import Session

from sweeper.database_url import Address, PostgresUrl
from sweeper.errors import DatabaseError
from sweeper.store.faults import explained
from sweeper.store.postgres import LOCK_OF_ALL, LOCK_OF_STUDY, postgres_engine
from sweeper.store.types import storable

BUSY_TIMEOUT_S = 30.0
"""How long a process waits for another one's write before it gives up."""

_BEGIN = "sweeper_begin"


def tune_sqlite(engine: Engine, *, busy_timeout_s: float = BUSY_TIMEOUT_S, foreign_keys: bool = True) -> None:
    """Give every connection of ``engine`` the settings that suit several processes on one SQLite file.

    ``synchronous=NORMAL`` (in WAL mode a power cut may lose the last transactions, never the database), the busy
    timeout, foreign keys, and transactions that SQLAlchemy begins and not the driver: the driver would read outside
    of them. The execution option ``sweeper_begin="IMMEDIATE"`` takes the write lock at the start, so that what was
    checked still holds when it is written. Also for engines of other libraries on the same file.
    """

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: object) -> None:
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {int(busy_timeout_s * 1000)}")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA foreign_keys = {int(foreign_keys)}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get(_BEGIN, 'DEFERRED')}")


def sqlite_engine(path: Path, *, busy_timeout_s: float, foreign_keys: bool = True, read_only: bool = False) -> Engine:
    """Return an engine on the existing file ``path``; a missing file is an error, never a new empty one."""
    address = f"{path.as_uri()}?mode={'ro' if read_only else 'rw'}"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(address, uri=True, timeout=busy_timeout_s, check_same_thread=False)

    # Parameters stay out of error texts: they may hold what is not to be shown.
    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool, hide_parameters=True)
    tune_sqlite(engine, busy_timeout_s=busy_timeout_s, foreign_keys=foreign_keys)
    return engine


def engine_on(address: Address, *, busy_timeout_s: float, read_only: bool = False) -> Engine:
    """Return an engine on an existing database.

    Raises:
        DatabaseError: If what its kind needs is not installed.
    """
    if isinstance(address, PostgresUrl):
        return postgres_engine(address, busy_timeout_s=busy_timeout_s, read_only=read_only)
    return sqlite_engine(address, busy_timeout_s=busy_timeout_s, read_only=read_only)


class Transactions:
    """Reading and writing transactions on one database; safe to share between threads."""

    def __init__(self, address: Address, engine: Engine) -> None:
        self.address = address
        self.engine = engine
        self._identity = _identity(address)
        if isinstance(address, PostgresUrl):
            self._reading: Engine = engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
            self._writing: Engine = engine
        else:
            self._reading = engine
            self._writing = engine.execution_options(**{_BEGIN: "IMMEDIATE"})

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a transaction that sees one consistent moment.

        Raises:
            DatabaseError: If the database cannot be read.
        """
        with explained(self.address), Session(self._reading) as session, session.begin():
            yield session

    @contextmanager
    def writing(self, study: str | None = None, *, single: bool = False) -> Iterator[Session]:
        """Open a transaction that holds the write lock from its start; all of it is stored, or nothing.

        What was checked in it still holds when it is written.

        Args:
            study: The one study whose rows are read and written, if it is one: on PostgreSQL writers of other studies
                then go on meanwhile.
            single: Whether it is one statement that nothing was checked before: PostgreSQL locks what it changes.

        Raises:
            DatabaseError: If the database cannot be written, was deleted or was replaced.
        """
        self._check_still_there()
        with explained(self.address), Session(self._writing) as session, session.begin():
            if not isinstance(self.address, PostgresUrl):
                session.connection()  # takes the lock
                self._check_still_there()  # it may have been moved while another process held it
            elif not single:
                lock, whose = (LOCK_OF_ALL, {}) if study is None else (LOCK_OF_STUDY, {"study": storable(study)})
                session.execute(lock, whose)
            yield session

    def _check_still_there(self) -> None:
        """Refuse to write to a file that has lost its name: SQLite would go on and all would vanish at the end."""
        if _identity(self.address) != self._identity:
            raise DatabaseError(
                f"database {self.address} was deleted, moved or replaced while in use: stop this process and put it "
                "back"
            )


def _identity(address: Address) -> tuple[int, int] | None:
    try:
        status = None if isinstance(address, PostgresUrl) else os.stat(address)
    except FileNotFoundError:
        return None
    return None if status is None else (status.st_dev, status.st_ino)
