"""Optuna's storage on the SQLite file that also holds sweeper's own tables."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from sqlalchemy import URL, Connection, event
from sqlalchemy.exc import DatabaseError as SQLAlchemyDatabaseError

from sweeper.errors import DatabaseError, LeaseLost

BUSY_TIMEOUT_S = 30
"""How long a write waits for another process's to end."""


def open_storage(path: Path) -> RDBStorage:
    """Open the SQLite file at ``path``, and create Optuna's tables where they are missing.

    The file is put in write-ahead-log mode, so that readers (the dashboard) and a writer do not block each other.
    Every transaction begins with ``BEGIN IMMEDIATE``: Optuna reads a trial's state and then changes it, and with
    SQLite's usual deferred transactions two processes could both do so.

    Raises:
        DatabaseError: If the file is no database, cannot be opened, or is from another version of Optuna.
    """
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    url = URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        with FileLock(path.with_name(f"{path.name}.lock")):  # creating the tables twice at once fails
            storage = RDBStorage(
                url.replace("{", "{{").replace("}", "}}"),  # Optuna puts the URL through str.format
                engine_kwargs={"creator": lambda: _connect(path)},
            )
    except (sqlite3.Error, SQLAlchemyDatabaseError, StorageInternalError, OSError) as error:
        reason = getattr(error, "orig", None) or error.__cause__ or error
        raise DatabaseError(
            f"{path} cannot be opened as a database: {reason}. Name another file, or move this one away."
        ) from error
    except RuntimeError as error:
        raise DatabaseError(
            f"{path} was written by another version of Optuna: {error} Or name another file for this version."
        ) from error
    event.listen(storage.engine, "begin", _begin_immediate)
    return storage


@contextmanager
def storage_faults() -> Iterator[None]:
    """Turn what a locked, full or vanished database raises into a ``DatabaseError``.

    A trial that was ended by another process is another worker's: ``LeaseLost``.
    """
    try:
        yield
    except UpdateFinishedTrialError as error:
        raise LeaseLost(f"{error} It was given to another worker, since this one was silent for too long.") from error
    except (sqlite3.Error, SQLAlchemyDatabaseError, StorageInternalError) as error:
        reason = getattr(error, "orig", None) or error.__cause__ or error
        raise DatabaseError(f"the database cannot be written: {reason}; mend that and resume the study") from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
    except sqlite3.Error:
        connection.close()
        raise
    connection.isolation_level = None  # transactions begin where SQLAlchemy says so, not where Python guesses
    return connection


def _begin_immediate(connection: Connection) -> Any:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
