"""The schema of a database: migrations to the current one, and refusal of what is not sweeper's.

The database is shared with Optuna, whose tables and migrations are never touched.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy import Engine, delete, insert, inspect, select, text
from sqlalchemy.exc import DBAPIError

from sweeper import __version__
from sweeper.database_url import Address, PostgresUrl
from sweeper.errors import DatabaseError
from sweeper.store.connection import BUSY_TIMEOUT_S, engine_on, open_engine, sqlite_engine
from sweeper.store.faults import explained
from sweeper.store.locks import advisory_lock
from sweeper.store.migrations import HEAD, VERSION_TABLE
from sweeper.store.tables import InfoRow

OPTUNA_TABLES = frozenset({"studies", "trials", "version_info", "alembic_version"})
"""A file that holds all of these is a database of Optuna's."""

_WRITER = "written_by"


@contextmanager
def creation_lock(address: Address, *, timeout_s: float = 120.0) -> Iterator[None]:
    """Hold the lock under which the tables of a database are made, sweeper's and Optuna's.

    Raises:
        DatabaseError: If another process holds it for too long, or folder or server cannot be used.
    """
    if isinstance(address, PostgresUrl):
        with (
            open_engine(address, busy_timeout_s=timeout_s) as engine,
            advisory_lock(engine, "creation", timeout_s=timeout_s),
        ):
            yield
        return
    lock = FileLock(address.with_name(f"{address.name}.lock"), timeout=timeout_s)
    try:
        with _accessible(address):
            lock.acquire()
    except Timeout as error:
        raise DatabaseError(
            f"database {address} has been set up by another process for {timeout_s:g} s: wait for it, or stop it"
        ) from error
    try:
        yield
    finally:
        lock.release()


def prepare(address: Address, *, create: bool, busy_timeout_s: float) -> None:
    """Make sure that ``address`` is a database at the current schema; with ``create``, make one if there is none.

    On a server, only the tables are made: its administrator makes the database. Several processes may do this at once.

    Raises:
        DatabaseError: If it cannot be brought there, saying why; the database is then unchanged.
    """
    exists = isinstance(address, PostgresUrl) or _check_file(address, create=create)
    with explained(address):
        if exists and _revision(address, create=create, busy_timeout_s=busy_timeout_s) == HEAD:
            return
        if not isinstance(address, PostgresUrl):
            with _accessible(address):
                address.parent.mkdir(parents=True, exist_ok=True)
        with creation_lock(address):
            if not isinstance(address, PostgresUrl):
                with _accessible(address):
                    address.touch()
            revision = _revision(address, create=create, busy_timeout_s=busy_timeout_s)
            if revision != HEAD:
                _migrate(address, revision, busy_timeout_s)


def require_current(address: Address, *, busy_timeout_s: float) -> None:
    """Refuse a database that is not at the current schema; it is left as it is.

    Raises:
        DatabaseError: If it is not, or is none, saying why.
    """
    if not isinstance(address, PostgresUrl):
        _check_file(address, create=False)
    with explained(address):
        revision = _revision(address, create=False, busy_timeout_s=busy_timeout_s, read_only=True)
        if revision == HEAD:
            return
        from sweeper.store.migrations.runner import known_revisions  # Alembic: slow to import, rarely needed

        if revision is not None and revision not in known_revisions():
            with open_engine(address, busy_timeout_s=busy_timeout_s, read_only=True) as engine:
                raise _from_newer(address, engine, revision)
    raise DatabaseError(
        f"database {address} was written by an older sweeper (schema {revision}); this is sweeper {__version__} "
        f"(schema {HEAD}), which changes nothing when it only reads: stop what runs there, then `sweeper status` "
        "brings it up to date"
    )


def is_there(address: Address) -> bool:
    """Return whether there is a database: the file, or sweeper's tables on the server.

    Raises:
        DatabaseError: If the server cannot be reached.
    """
    if not isinstance(address, PostgresUrl):
        return address.exists()
    with open_engine(address, busy_timeout_s=BUSY_TIMEOUT_S, read_only=True) as engine, engine.connect() as connection:
        return inspect(connection).has_table(VERSION_TABLE)


def _check_file(path: Path, *, create: bool) -> bool:
    """Return whether the file is there; refuse what SQLite would hang on (a FIFO) or report less clearly.

    The file is not opened: closing it would release the locks that SQLite holds on it in this process, and another
    process would then clean up files in use (sqlite.org/howtocorrupt.html, section 2.2).
    """
    with _accessible(path):
        try:
            mode = path.stat().st_mode
        except FileNotFoundError as error:
            if create:
                return False
            raise DatabaseError(f"no database at {path}: run a study first, or give the path of one") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise DatabaseError(f"database {path} is {kind}: give the path of a file")
    return True


@contextmanager
def _accessible(path: Path) -> Iterator[None]:
    try:
        yield
    except Timeout:
        raise
    except OSError as error:
        raise DatabaseError(
            f"database {path} cannot be used ({error.strerror}): make sure you may read and write file and folder"
        ) from error


def _revision(address: Address, *, create: bool, busy_timeout_s: float, read_only: bool = False) -> str | None:
    """Return the schema revision of the database; None if it has none of sweeper's tables yet.

    Raises:
        DatabaseError: If it is another program's, or empty and not to be created.
    """
    opened = open_engine(address, busy_timeout_s=busy_timeout_s, read_only=read_only)
    with opened as engine, engine.connect() as connection:
        tables = set(inspect(connection).get_table_names())
        if VERSION_TABLE in tables:
            revision = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))
            return None if revision is None else str(revision)
    if tables and not tables >= OPTUNA_TABLES:
        found = ", ".join(sorted(tables)[:5])
        where = "database or schema" if isinstance(address, PostgresUrl) else "path"
        raise DatabaseError(f"database {address} belongs to another program (tables {found}): give another {where}")
    if not tables and not create:
        raise DatabaseError(f"database {address} is empty: run a study first, or give the path of another one")
    return None


def _migrate(address: Address, revision: str | None, busy_timeout_s: float) -> None:
    """Run the missing migrations in one transaction.

    On SQLite, foreign keys are off meanwhile, so that rebuilding a table does not delete the rows that refer to it.
    """
    from sweeper.store.migrations.runner import known_revisions, upgrade  # Alembic: slow to import, rarely needed

    if isinstance(address, PostgresUrl):
        engine = engine_on(address, busy_timeout_s=busy_timeout_s)
    else:
        engine = sqlite_engine(address, busy_timeout_s=busy_timeout_s, foreign_keys=False)
    try:
        if revision is not None and revision not in known_revisions():
            raise _from_newer(address, engine, revision)
        if not isinstance(address, PostgresUrl):
            _switch_to_wal(engine)
        with engine.execution_options(sweeper_begin="IMMEDIATE").begin() as connection:
            upgrade(connection)
            connection.execute(delete(InfoRow).where(InfoRow.key == _WRITER))
            connection.execute(insert(InfoRow).values(key=_WRITER, value=__version__))
    finally:
        engine.dispose()


def _switch_to_wal(engine: Engine) -> None:
    """Let readers and a writer work at once, if the file system can; the file remembers."""
    raw = engine.raw_connection()
    try:
        raw.cursor().execute("PRAGMA journal_mode = WAL")
    finally:
        raw.close()


def _from_newer(address: Address, engine: Engine, revision: str) -> DatabaseError:
    try:
        with engine.connect() as connection:
            writer = connection.scalar(select(InfoRow.value).where(InfoRow.key == _WRITER))
    except DBAPIError:  # the newer schema may keep this elsewhere
        writer = None
    by = f"sweeper {writer}" if writer else "a newer sweeper"
    return DatabaseError(
        f"database {address} was written by {by} (schema {revision}); this is sweeper {__version__} (schema {HEAD}): "
        "upgrade sweeper, or give another path"
    )
