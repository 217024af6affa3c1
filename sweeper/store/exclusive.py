"""One at a time: what several workers of a study must not do at once, in this process, others and other machines."""

from __future__ import annotations

import fcntl
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sweeper.errors import DatabaseError
from sweeper.patience import patiently

PATIENCE_S = 120.0
"""How long to wait for a turn: a turn takes milliseconds, so that whoever has it for longer was stopped midway."""

_LONGEST_NAP_S = 0.01


class Turns:
    """Who may decide about a study of one database: one thread of one process at a time.

    A turn ends with its process, however that ends.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
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
        with lock, _file_lock(self._database.with_name(f"{self._database.name}.{study}.lock"), study):
            held.add(study)
            try:
                yield
            finally:
                held.discard(study)


@contextmanager
def _file_lock(path: Path, study: str) -> Iterator[None]:
    descriptor = _opened(path)
    try:
        _await(descriptor, path, study)
        yield
    finally:
        os.close(descriptor)  # which lets go of the lock


@patiently
def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise DatabaseError(f"{path} cannot be written ({error.strerror}): a study cannot run without it") from error


@patiently
def _await(descriptor: int, path: Path, study: str) -> None:
    """Wait for the lock in naps of random lengths, so that no waiter is always the last."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > until:
                raise DatabaseError(
                    f"another process has held study {study!r} for {PATIENCE_S:g} s ({path}): it was stopped midway; "
                    "let it go on or end it"
                ) from TimeoutError(str(error))
        time.sleep(random.uniform(0.0005, _LONGEST_NAP_S))
