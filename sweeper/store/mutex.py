"""One at a time: what several workers of a study must not do at once, in this process, others and other machines."""

from __future__ import annotations

import fcntl
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

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

PATIENCE_S = 120.0
"""How long to wait for a turn: a turn takes milliseconds, so that whoever has it for longer was stopped midway."""

_LONGEST_NAP_S = 0.03
"""Many who wait look often enough between them; with 32 of them 0.01 cost more than it won."""


class StudyLocks:
    """Who may decide about a study of one database: one thread of one process at a time.

    A turn ends with its process, however that ends.
    """

    def __init__(self, address: Address, engine: Engine) -> None:
        self._address = address
        self._engine = engine
        self._mine = threading.local()
        self._threads: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    @contextmanager
    def take(self, study: str) -> Iterator[None]:
        """Hold the turn of a study for the block; a block within a block holds it already.

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
    """Hold the lock of a server; a runner that waits for a lost server goes on in its turn when that is back.

    Another one may have had a turn meanwhile: leases, and states that change at most once, are what keeps them apart.
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
        held.enter_context(advisory_lock(engine, study, timeout_s=PATIENCE_S))
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) == _LOCK_TIMEOUT:
            raise _stopped_midway(study, str(server)) from error
        raise
    return held


@contextmanager
def _file_lock(path: Path, study: str) -> Iterator[None]:
    descriptor = _opened(path)
    try:
        _await(descriptor, path, study)
        yield
    finally:
        os.close(descriptor)  # which lets go of the lock


@retried
def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise DatabaseError(f"{path} cannot be written ({error.strerror}): a study cannot run without it") from error


@retried
def _await(descriptor: int, path: Path, study: str) -> None:
    """Wait for the lock in naps of random lengths, so that no waiter is always the last."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > until:
                raise _stopped_midway(study, str(path)) from TimeoutError(str(error))
        time.sleep(random.uniform(0.0005, _LONGEST_NAP_S))


def _stopped_midway(study: str, where: str) -> DatabaseError:
    return DatabaseError(
        f"another process has held study {study!r} for {PATIENCE_S:g} s ({where}): it was stopped midway; "
        "let it go on or end it"
    )


@contextmanager
def advisory_lock(engine: Engine, name: str, *, timeout_s: float) -> Iterator[None]:
    """Hold the lock called ``name`` by a transaction of its own: it is let go of however this process ends.

    Schemas of one database have locks of their own.

    Args:
        engine: On the PostgreSQL database.
        name: What is locked, of any length.
        timeout_s: How long to wait.

    Raises:
        sqlalchemy.exc.OperationalError: If somebody else holds it for too long, or the connection was lost: then it
            may have been held by another one meanwhile.
    """
    with engine.begin() as connection:
        connection.execute(text("SELECT set_config('lock_timeout', :ms, true)"), {"ms": str(int(timeout_s * 1000))})
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_KEY})"), {"name": name})
        yield
