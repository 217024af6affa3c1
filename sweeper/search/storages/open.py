"""Optuna's storage in the database that also holds sweeper's own tables."""

from __future__ import annotations

import logging
import sqlite3
import weakref
from contextlib import ContextDecorator
from pathlib import Path
from types import TracebackType
from typing import Any

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from sqlalchemy import URL, Connection, event
from sqlalchemy.exc import DatabaseError as SQLAlchemyDatabaseError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from sweeper.database_url import Address, PostgresUrl
from sweeper.errors import DatabaseError, LeaseLost
from sweeper.redact import redact
from sweeper.retry import retried
from sweeper.search.storages.atomic import AtomicStorage
from sweeper.store import connection_arguments, creation_lock, explain, missing_driver

BUSY_TIMEOUT_S = 30
"""How long a write waits for another process's to end."""


@retried
def open_storage(address: Address) -> AtomicStorage:
    """Open a database for Optuna, and create Optuna's tables where they are missing.

    Raises:
        DatabaseError: If it is no database, cannot be opened, or is from another version of Optuna.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        storage = _on_server(address) if isinstance(address, PostgresUrl) else _on_file(address.absolute())
    except (sqlite3.Error, SQLAlchemyDatabaseError, StorageInternalError, PoolTimeout, OSError) as error:
        if isinstance(address, PostgresUrl):
            raise explain(_origin(error), address) from error
        raise DatabaseError(
            f"{address} cannot be opened as a database: {_origin(error)}. Name another file, or move this one away."
        ) from error
    except ImportError as error:
        raise missing_driver(error) from error
    except RuntimeError as error:
        raise DatabaseError(
            f"{address} was written by another version of Optuna: {error} Or name another database for this version."
        ) from error
    return storage


def _on_file(path: Path) -> AtomicStorage:
    """Open an SQLite file.

    It is put in write-ahead-log mode, so that readers (the dashboard) and a writer do not block each other. Every
    transaction begins with ``BEGIN IMMEDIATE``: Optuna reads a trial's state and then changes it, and with SQLite's
    usual deferred transactions two processes could both do so.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    url = URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)
    with creation_lock(path):  # creating the tables twice at once fails
        storage = AtomicStorage(_template(url), engine_kwargs={"creator": lambda: _connect(path)})
    event.listen(storage.engine, "begin", _begin_immediate)
    return storage


def _on_server(server: PostgresUrl) -> AtomicStorage:
    """Open a database of a server; a storage that is pickled holds no password.

    A connection that was lost is replaced when the next is needed.
    """
    arguments = connection_arguments(server, busy_timeout_s=BUSY_TIMEOUT_S)
    url = arguments.pop("url").render_as_string(hide_password=False)  # holds none
    with creation_lock(server):
        storage = AtomicStorage(_template(url), engine_kwargs={**arguments, "hide_parameters": True})
        weakref.finalize(storage, storage.engine.dispose)  # a server counts its connections
    storage.engine_kwargs = {"pool_pre_ping": True, "hide_parameters": True}
    return storage


def _template(url: str) -> str:
    """Return what Optuna, which puts its URL through ``str.format``, turns into ``url``."""
    return url.replace("{", "{{").replace("}", "}}")


def _origin(error: BaseException) -> BaseException:
    """Return what the driver said."""
    while not (isinstance(error, sqlite3.Error) or hasattr(error, "sqlstate")):
        below = getattr(error, "orig", None) or error.__cause__
        if below is None:
            break
        error = below
    return error


class StorageFaults(ContextDecorator):
    """Turns the faults of a database that is locked, full or gone into a ``DatabaseError``, in a block or a function.

    A trial that another process has ended belongs to another worker: ``LeaseLost``.
    """

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, UpdateFinishedTrialError):
            raise LeaseLost(f"{error} It was reassigned to another worker: this one missed its heartbeats.") from error
        if isinstance(error, (sqlite3.Error, SQLAlchemyDatabaseError, StorageInternalError, PoolTimeout)):
            reason = " ".join(redact(str(_origin(error))).split())
            raise DatabaseError(f"the database cannot be written: {reason}; fix that and resume the study") from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
    except sqlite3.Error:
        connection.close()
        raise
    connection.isolation_level = None  # SQLAlchemy begins transactions, not the driver
    return connection


def _begin_immediate(connection: Connection) -> Any:
    connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('sweeper_begin', 'IMMEDIATE')}")
