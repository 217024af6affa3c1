"""Transactions on Optuna's storage: what a thread writes is stored together, or gathered and stored at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage, _StudyInfo
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from sweeper.retry import retried

Write = Callable[[Connection], None]


class TransactionalStorage(RDBStorage):
    """Optuna's storage whose threads can put many reads and writes into one transaction.

    Threads may share it; processes open their own, so it cannot be pickled.
    """

    def __init__(self, url: str, engine_kwargs: dict[str, Any] | None = None) -> None:
        self._local = threading.local()
        try:
            super().__init__(url, engine_kwargs)
        except BaseException:
            if hasattr(self, "scoped_session"):  # its connections are known to no one else
                self.remove_session()
                self.engine.dispose()
            raise
        self._reader = self.engine.execution_options(sweeper_begin="DEFERRED")
        self._writer = self.engine.execution_options(sweeper_begin="IMMEDIATE")
        # What is inherited reads through sessions. They take part in the thread's transaction, if there is one.
        self.scoped_session = scoped_session(
            sessionmaker(class_=_joining(self._bind), join_transaction_mode="rollback_only")
        )

    def __reduce__(self) -> Any:
        raise TypeError("a storage is opened by each process for itself: a pickled one would hold its password")

    def _bind(self) -> Connection | Engine:
        self._flush()
        return self._current() or self._reader

    def _current(self) -> Connection | None:
        return getattr(self._local, "connection", None)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Store all that this thread writes inside at once, or nothing of it; reads inside see it already.

        On SQLite the write lock is held from the start to the end.

        Raises:
            StorageInternalError: If the database cannot be written.
        """
        current = self._current()
        if current is not None:
            yield current
            return
        self._flush()
        with _optunas_faults(), self._writer.begin() as connection:
            self._local.connection, self._local.updatable = connection, {}
            try:
                yield connection
            except BaseException:
                self._forget()
                raise
            finally:
                self._local.connection = None

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Keep back what this thread writes about trials, and store it in one transaction at the end.

        Whatever reads, creates a trial or changes a state stores it before. Nothing is locked meanwhile: it is for
        sampling, where the writes are far apart. After an error, what is still kept back is dropped.
        """
        if self._current() is not None or self._pending() is not None:
            yield
            return
        self._local.pending = []
        try:
            yield
            retried(self._flush)()
        finally:
            self._local.pending = None

    def _forget(self) -> None:
        """Forget what was read: it may be of a transaction that was rolled back."""

    def _pending(self) -> list[Write] | None:
        return getattr(self._local, "pending", None)

    def _flush(self) -> None:
        pending = self._pending()
        if not pending:
            return
        self._local.pending = None
        try:
            with self.transaction() as connection:
                for write in pending:
                    write(connection)
        except BaseException:
            self._local.pending = pending  # a retry stores them
            raise
        self._local.pending = []

    def _write(self, write: Write) -> None:
        pending = self._pending()
        if pending is not None and self._current() is None:
            pending.append(write)
            return
        with self.transaction() as connection:
            write(connection)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        current = self._current()
        if current is not None:
            yield current
            return
        self._flush()
        with _optunas_faults(), self._reader.connect() as connection:
            yield connection


@contextmanager
def together(study: optuna.Study) -> Iterator[None]:
    """Make what is read and written in the block one transaction, if the storage can do that.

    Optuna caches what it has read, even in a transaction that is rolled back: it is made to forget that.
    """
    cache, storage = study._storage, _storage_of(study)
    if storage is None or not isinstance(cache, _CachedStorage):
        yield
        return
    known = cache._studies.get(study._study_id, _StudyInfo())
    trials, unfinished, last = dict(known.trials), set(known.unfinished_trial_ids), known.last_finished_trial_id
    try:
        with storage.transaction():
            yield
    except BaseException:
        present = cache._studies.get(study._study_id, _StudyInfo())
        present.trials, present.unfinished_trial_ids, present.last_finished_trial_id = trials, unfinished, last
        raise


def gathered(study: optuna.Study) -> AbstractContextManager[Any]:
    """Return a block whose writes are stored at its end."""
    storage = _storage_of(study)
    return nullcontext() if storage is None else storage.gathered()


def _storage_of(study: optuna.Study) -> TransactionalStorage | None:
    storage = getattr(study._storage, "_backend", None)
    return storage if isinstance(storage, TransactionalStorage) else None


def _joining(bind: Callable[[], Connection | Engine]) -> type[Session]:
    class Joining(Session):
        def get_bind(self, *_: Any, **__: Any) -> Any:
            return bind()

    return Joining


@contextmanager
def _optunas_faults() -> Iterator[None]:
    """Turn a database's fault into the error that Optuna's storages raise."""
    try:
        yield
    except SQLAlchemyError as error:
        raise StorageInternalError(f"the database failed: {error}") from error
