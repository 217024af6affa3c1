"""Connections and transactions. A file is never created by accident, and every transaction is begun explicitly."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event, text
from sqlalchemy.orm import Session

from sweeper.database_url import Address, PostgresUrl
from sweeper.errors import DatabaseError
from sweeper.store.faults import explained
from sweeper.store.types import storable

BUSY_TIMEOUT_S = 30.0
"""How long a process waits for another one's write before it gives up."""

_BEGIN = "sweeper_begin"

CONNECT_TIMEOUT_S = 10
STALLED_S = 300
"""How long a transaction may be idle before the server ends it: others wait for its locks."""

_ALL = "hashtextextended('sweeper ' || current_schema(), 0)"
_STUDY = "hashtextextended('sweeper study ' || current_schema() || ' ' || CAST(:study AS text), 0)"

LOCK_OF_ALL = text(f"SELECT pg_advisory_xact_lock({_ALL})")
"""Waits until no other process writes, and keeps others from writing until the transaction ends."""

LOCK_OF_STUDY = text(f"SELECT pg_advisory_xact_lock_shared({_ALL}), pg_advisory_xact_lock({_STUDY})")
"""The same for the writers of one study."""


def tune_sqlite(engine: Engine, *, busy_timeout_s: float = BUSY_TIMEOUT_S, foreign_keys: bool = True) -> None:
    """Give every connection of ``engine`` the settings that suit several processes on one SQLite file.

    These are ``synchronous=NORMAL`` (in WAL mode a power cut may lose the last transactions, never the database), the
    busy timeout, foreign keys, and transactions begun by SQLAlchemy: the driver would read outside of them. The
    execution option ``sweeper_begin="IMMEDIATE"`` takes the write lock at the start, so that what was checked still
    holds when it is written. Also for engines of other libraries on the same file.
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


def connection_arguments(server: PostgresUrl, *, busy_timeout_s: float) -> dict[str, Any]:
    """Return the arguments of ``create_engine`` for a server: ``url`` without a password, and ``connect_args`` with it.

    Locks are waited for as long as SQLite's. The server notices within a minute that a machine is gone, and then
    releases the locks of its processes.

    Raises:
        DatabaseError: If a variable that the URL refers to is not set.
    """
    url = server.url
    query = dict(url.query)
    secrets: dict[str, Any] = {key: query.pop(key) for key in ("password", "sslpassword") if key in query}
    if url.password is not None:
        secrets["password"] = str(url.password)
    schema = query.pop("search_path", None)
    given = query.pop("options", "")
    settings: dict[str, Any] = {
        "lock_timeout": int(busy_timeout_s * 1000),
        "idle_in_transaction_session_timeout": STALLED_S * 1000,
        "tcp_keepalives_idle": 20,
        "tcp_keepalives_interval": 10,
        "tcp_keepalives_count": 3,
    }
    if schema is not None:
        settings["search_path"] = schema if isinstance(schema, str) else ",".join(schema)
    options = [given if isinstance(given, str) else " ".join(given)]
    options += [f"-c {name}={_escaped(value)}" for name, value in settings.items()]
    arguments: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "sweeper"}
    arguments = {key: value for key, value in arguments.items() if key not in query}
    # psycopg prepares frequent statements on the server, which a connection pooler in between may mix up.
    arguments |= {**secrets, "options": " ".join(options).strip(), "prepare_threshold": None}
    without = URL.create(url.drivername, url.username, None, url.host, url.port, url.database, query)
    return {"url": without, "connect_args": arguments, "pool_pre_ping": True}


def _escaped(value: object) -> str:
    """Return a setting's value, escaped for the options of a connection, which are separated by spaces."""
    return str(value).replace("\\", "\\\\").replace(" ", "\\ ")


def postgres_engine(server: PostgresUrl, *, busy_timeout_s: float, read_only: bool = False) -> Engine:
    """Return an engine, which is not connected yet and replaces lost connections.

    Raises:
        DatabaseError: If psycopg is not installed, or a variable that the URL refers to is not set.
    """
    arguments = connection_arguments(server, busy_timeout_s=busy_timeout_s)
    try:
        # Parameters stay out of error texts: they may hold what is not to be shown.
        engine = create_engine(**arguments, hide_parameters=True)
    except ImportError as error:
        raise missing_driver(error) from error
    return engine.execution_options(postgresql_readonly=True) if read_only else engine


def missing_driver(error: ImportError) -> DatabaseError:
    """Return the error of a missing psycopg, or of the library below it."""
    return DatabaseError(
        f"PostgreSQL needs psycopg, which is not usable here ({error}): pip install 'sweeper[postgres]'"
    )


def engine_on(address: Address, *, busy_timeout_s: float, read_only: bool = False) -> Engine:
    """Return an engine on an existing database.

    Raises:
        DatabaseError: If its driver is not installed.
    """
    if isinstance(address, PostgresUrl):
        return postgres_engine(address, busy_timeout_s=busy_timeout_s, read_only=read_only)
    return sqlite_engine(address, busy_timeout_s=busy_timeout_s, read_only=read_only)


@contextmanager
def open_engine(address: Address, *, busy_timeout_s: float, read_only: bool = False) -> Iterator[Engine]:
    """Yield an engine on an existing database for the block; its errors are explained."""
    engine = engine_on(address, busy_timeout_s=busy_timeout_s, read_only=read_only)
    try:
        with explained(address):
            yield engine
    finally:
        engine.dispose()


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
            study: The study whose rows are read and written, if only one: on PostgreSQL other studies can be written
                meanwhile.
            single: Whether it is a single statement that nothing was checked for: PostgreSQL locks what it changes.

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
        """Refuse to write to a file that has lost its name: SQLite would write on, and all would vanish at the end."""
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
