"""The database: one SQLite file that holds sweeper's tables beside Optuna's."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from sweeper.patience import make_patient
from sweeper.store.actions import Actions
from sweeper.store.adapters import Adapters
from sweeper.store.connection import BUSY_TIMEOUT_S, Sessions, sqlite_engine
from sweeper.store.evaluations import Evaluations
from sweeper.store.events import Events
from sweeper.store.exclusive import Turns
from sweeper.store.feedback import FeedbackStore
from sweeper.store.leases import Leases
from sweeper.store.metrics import Metrics
from sweeper.store.orders import Orders
from sweeper.store.schema import prepare, require_current
from sweeper.store.studies import Studies
from sweeper.store.trials import Trials
from sweeper.store.workers import Workers


class Database:
    """An open database; a context manager that closes it. Threads may share it; processes open their own.

    Every call of its parts is one transaction, stored in full or not at all. Any call raises ``DatabaseError`` where
    the file is locked for too long, full, read-only, damaged, or gone.

    Attributes:
        path: The file.
        studies: Questions about studies.
        trials: Questions about trials.
        metrics: Questions about what trials reported.
        evaluations: Questions about final scores.
        adapters: Questions about registered adapters.
        events: Questions about what happened.
        actions: Questions about what people did.
        feedback: Questions about what people thought of answers.
        orders: Questions about what people ask of the runner of a study.
        workers: Questions about the processes that run trials.
        leases: Questions about which of them holds which trial.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self.path = sessions.path
        self.studies = Studies(sessions)
        self.trials = Trials(sessions)
        self.metrics = Metrics(sessions)
        self.evaluations = Evaluations(sessions)
        self.adapters = Adapters(sessions)
        self.events = Events(sessions)
        self.actions = Actions(sessions)
        self.feedback = FeedbackStore(sessions)
        self.orders = Orders(sessions)
        self.workers = Workers(sessions)
        self.leases = Leases(sessions)
        self._turns = Turns(sessions.path)
        for name, part in vars(self).items():
            if not name.startswith("_") and name != "path":
                make_patient(part)

    @classmethod
    def open(
        cls, path: Path, *, create: bool, read_only: bool = False, busy_timeout_s: float = BUSY_TIMEOUT_S
    ) -> Database:
        """Open the database at ``path`` and bring it to the current schema.

        Args:
            path: The SQLite file.
            create: Whether to make the file where there is none.
            read_only: Whether to change nothing in the file, its schema included.
            busy_timeout_s: How long to wait for other processes' writes.

        Raises:
            DatabaseError: If it is no database of ours, is from a newer sweeper (read only: from an older one too), or
                cannot be used; nothing changed.
        """
        path = path.absolute()
        if read_only:
            require_current(path, busy_timeout_s=busy_timeout_s)
        else:
            prepare(path, create=create, busy_timeout_s=busy_timeout_s)
        return cls(Sessions(path, sqlite_engine(path, busy_timeout_s=busy_timeout_s, read_only=read_only)))

    def exclusively(self, study: str) -> AbstractContextManager[None]:
        """Return a block in which no other process or thread decides about a study; blocks may be nested.

        Raises:
            DatabaseError: On entering, if another process holds it for too long.
        """
        return self._turns.take(study)

    def close(self) -> None:
        """Close every connection."""
        self._sessions.engine.dispose()

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
