"""Study locks: one worker at a time decides about a study, across threads, processes and machines."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from sweeper.database_url import Address, PostgresUrl
from sweeper.errors import DatabaseError
from sweeper.faults import passing
from sweeper.retry import is_waiting, retried
from sweeper.store.faults import explained

_KEY = "hashtextextended('sweeper mutex ' || current_schema() || ' ' || CAST(:name AS text), 0)"

_LOCK_TIMEOUT = "55P03"
"""The server's code for a lock that was waited for too long."""

TIMEOUT_S = 120.0
"""How long to wait for a lock. It is held for milliseconds, so a longer holder was suspended midway."""

_LONGEST_POLL_S = 0.03
"""With 32 waiting processes, polling every 0.01 s cost more than it gained."""


class StudyLocks:
    """The locks of the studies of one database, each held by one thread of one process at a time.

    A lock is released when its process ends, however it ends.
    """

    def __init__(self, address: Address, engine: Engine) -> None:
        self._address = address
        self._engine = engine
        self._mine = threading.local()
        self._threads: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    @contextmanager
    def hold(self, study: str) -> Iterator[None]:
        """Hold the lock of a study for the block; a nested block holds it already.

        Raises:
            DatabaseError: If another process has held it for too long, or its file cannot be written.
        """
        held: set[str] = self._mine.__dict__.setdefault("studies", set())
        if study in held:
            yield
            return
        with self._guard:
            lock = self._threads.setdefault(study, threading.Lock())
        with lock, self._lock(study):
            held.add(study)
            try:
                yield
            finally:
                held.discard(study)

    def _lock(self, study: str) -> AbstractContextManager[None]:
        if isinstance(self._address, PostgresUrl):
            return _server_lock(self._engine, self._address, study)
        return _file_lock(self._address.with_name(f"{self._address.name}.{study}.lock"), study)


@contextmanager
def _server_lock(engine: Engine, server: PostgresUrl, study: str) -> Iterator[None]:
    """Hold the lock of a server; a runner that waits for a lost server continues the block when it is back.

    Another process may have held the lock meanwhile: leases, and states that change at most once, keep the two apart.
    """
    with explained(server):
        held = _on_server(engine, server, study)
        try:
            yield
        finally:
            try:
                held.close()
            except DBAPIError as error:
                if not (is_waiting() and passing(error)):  # the lock went with its connection
                    raise


@retried
def _on_server(engine: Engine, server: PostgresUrl, study: str) -> ExitStack:
    held = ExitStack()
    try:
        held.enter_context(advisory_lock(engine, study, timeout_s=TIMEOUT_S))
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) == _LOCK_TIMEOUT:
            raise _timed_out(study, str(server)) from error
        raise
    return held


@contextmanager
def _file_lock(path: Path, study: str) -> Iterator[None]:
    lock = FileLock(path, fallback_to_soft=False)  # a soft lock would outlive a killed process
    _acquire(lock, study)
    try:
        yield
    finally:
        lock.release()


@retried
def _acquire(lock: FileLock, study: str) -> None:
    try:
        # Polls of random lengths, so that no process that waits is always the last.
        lock.acquire(timeout=TIMEOUT_S, poll_interval=random.uniform(0.001, _LONGEST_POLL_S))
    except Timeout as error:
        raise _timed_out(study, lock.lock_file) from error
    except OSError as error:
        path = lock.lock_file
        raise DatabaseError(f"{path} cannot be written ({error.strerror}): a study cannot run without it") from error


def _timed_out(study: str, where: str) -> DatabaseError:
    return DatabaseError(
        f"another process has held study {study!r} for {TIMEOUT_S:g} s ({where}): it was suspended midway; "
        "let it continue, or stop it"
    )


@contextmanager
def advisory_lock(engine: Engine, name: str, *, timeout_s: float) -> Iterator[None]:
    """Hold the PostgreSQL lock called ``name`` by its own transaction: it is released however this process ends.

    Each schema of a database has its own locks.

    Args:
        engine: On the PostgreSQL database.
        name: What is locked, of any length.
        timeout_s: How long to wait.

    Raises:
        sqlalchemy.exc.OperationalError: If another process holds it for too long, or the connection was lost: then
            another one may have held it meanwhile.
    """
    with engine.begin() as connection:
        connection.execute(text("SELECT set_config('lock_timeout', :ms, true)"), {"ms": str(int(timeout_s * 1000))})
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_KEY})"), {"name": name})
        yield
