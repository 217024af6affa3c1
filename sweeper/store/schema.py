"""Bring a database file to the current schema, and refuse files that are not ours.

The file is shared with Optuna, whose tables and migrations are never touched.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy import Engine, delete, insert, select, text
from sqlalchemy.exc import DBAPIError

from sweeper import __version__
from sweeper.errors import DatabaseError
from sweeper.store.connection import sqlite_engine
from sweeper.store.faults import explained
from sweeper.store.migrations import HEAD, VERSION_TABLE
from sweeper.store.tables import InfoRow

OPTUNA_TABLES = frozenset({"studies", "trials", "version_info", "alembic_version"})
"""A file that holds all of these is a database of Optuna's."""

_WRITER = "written_by"


@contextmanager
def creation_lock(path: Path, *, timeout_s: float = 120.0) -> Iterator[None]:
    """Hold the lock under which the tables of the database ``path`` are made, ours and Optuna's.

    Raises:
        DatabaseError: If another process holds it for too long, or the folder cannot be written.
    """
    lock = FileLock(path.with_name(f"{path.name}.lock"), timeout=timeout_s)
    try:
        lock.acquire()
    except Timeout as error:
        raise DatabaseError(
            f"database {path} is being set up by another process since {timeout_s:g} s: wait for it or stop it"
        ) from error
    except OSError as error:
        raise _inaccessible(path, error) from error
    try:
        yield
    finally:
        lock.release()


def prepare(path: Path, *, create: bool, busy_timeout_s: float) -> None:
    """Make sure that ``path`` is a database at the current schema; with ``create``, make one where there is none.

    Several processes may do this at once on the same new file.

    Raises:
        DatabaseError: If it cannot be, saying why; the file is then as it was.
    """
    exists = _check_file(path, create=create)
    with explained(path):
        if exists and _revision(path, create=create, busy_timeout_s=busy_timeout_s) == HEAD:
            return
        _make_folder(path)
        with creation_lock(path):
            _make_file(path)
            revision = _revision(path, create=create, busy_timeout_s=busy_timeout_s)
            if revision != HEAD:
                _migrate(path, revision, busy_timeout_s)


def require_current(path: Path, *, busy_timeout_s: float) -> None:
    """Refuse a database that is not at the current schema; the file is left as it is.

    Raises:
        DatabaseError: If it is not, or is none, saying why.
    """
    _check_file(path, create=False)
    with explained(path):
        revision = _revision(path, create=False, busy_timeout_s=busy_timeout_s, read_only=True)
        if revision == HEAD:
            return
        from sweeper.store.migrations.runner import known_revisions  # Alembic: slow to import, rarely needed

        if revision is not None and revision not in known_revisions():
            engine = sqlite_engine(path, busy_timeout_s=busy_timeout_s, read_only=True)
            try:
                raise _from_newer(path, engine, revision)
            finally:
                engine.dispose()
    raise DatabaseError(
        f"database {path} was written by an older sweeper (schema {revision}); this is sweeper {__version__} (schema "
        f"{HEAD}), and looking changes nothing: end whatever runs there, then `sweeper status` brings it up to date"
    )


def _check_file(path: Path, *, create: bool) -> bool:
    """Return whether the file is there; refuse what SQLite would hang on (a FIFO) or report less clearly.

    The file is not opened here: closing it would take away the locks that SQLite holds on it in this process, and
    another process would then tidy up what is in use (sqlite.org/howtocorrupt.html, section 2.2).
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
            raise DatabaseError(f"database {path} is {kind}: give the path of a file")
    except FileNotFoundError as error:
        if create:
            return False
        raise DatabaseError(f"no database at {path}: run a study first, or give the path of one") from error
    except OSError as error:
        raise _inaccessible(path, error) from error
    return True


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _inaccessible(path, error) from error


def _make_file(path: Path) -> None:
    try:
        path.touch()
    except OSError as error:
        raise _inaccessible(path, error) from error


def _inaccessible(path: Path, error: OSError) -> DatabaseError:
    return DatabaseError(
        f"database {path} cannot be used ({error.strerror}): check that you may read and write the file and its folder"
    )


def _revision(path: Path, *, create: bool, busy_timeout_s: float, read_only: bool = False) -> str | None:
    """Return the schema revision of the file, None where it has none of our tables yet.

    Raises:
        DatabaseError: If the file is another program's, or empty and not to be created.
    """
    engine = sqlite_engine(path, busy_timeout_s=busy_timeout_s, read_only=read_only)
    try:
        with engine.connect() as connection:
            tables = set(connection.scalars(text("SELECT name FROM sqlite_master WHERE type = 'table'")))
            if VERSION_TABLE in tables:
                revision = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))
                return None if revision is None else str(revision)
    finally:
        engine.dispose()
    if tables and not tables >= OPTUNA_TABLES:
        found = ", ".join(sorted(tables)[:5])
        raise DatabaseError(f"database {path} belongs to another program (tables {found}): give another path")
    if not tables and not create:
        raise DatabaseError(f"database {path} is empty: run a study first, or give the path of another one")
    return None


def _migrate(path: Path, revision: str | None, busy_timeout_s: float) -> None:
    """Run the missing migrations in one transaction.

    Foreign keys are off in it, so that a migration that rebuilds a table deletes nothing that refers to it.
    """
    from sweeper.store.migrations.runner import known_revisions, upgrade  # Alembic: slow to import, rarely needed

    engine = sqlite_engine(path, busy_timeout_s=busy_timeout_s, foreign_keys=False)
    try:
        if revision is not None and revision not in known_revisions():
            raise _from_newer(path, engine, revision)
        _switch_to_wal(engine)
        with engine.execution_options(sweeper_begin="IMMEDIATE").begin() as connection:
            upgrade(connection)
            connection.execute(delete(InfoRow).where(InfoRow.key == _WRITER))
            connection.execute(insert(InfoRow).values(key=_WRITER, value=__version__))
    finally:
        engine.dispose()


def _switch_to_wal(engine: Engine) -> None:
    """Let readers and a writer work at once; the file remembers. Where the file system cannot, it stays as it was."""
    raw = engine.raw_connection()
    try:
        raw.cursor().execute("PRAGMA journal_mode = WAL")
    finally:
        raw.close()


def _from_newer(path: Path, engine: Engine, revision: str) -> DatabaseError:
    try:
        with engine.connect() as connection:
            writer = connection.scalar(select(InfoRow.value).where(InfoRow.key == _WRITER))
    except DBAPIError:  # the newer schema may keep this elsewhere
        writer = None
    by = f"sweeper {writer}" if writer else "a newer sweeper"
    return DatabaseError(
        f"database {path} was written by {by} (schema {revision}); this is sweeper {__version__} (schema {HEAD}): "
        "upgrade sweeper, or give another path"
    )
