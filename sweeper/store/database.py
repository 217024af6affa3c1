"""The database: an SQLite file, or one of a PostgreSQL server, with sweeper's tables beside Optuna's."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Self

from sweeper.config.storage import PostgresStorage, SqliteStorage
from sweeper.database_url import Address, PostgresUrl
from sweeper.errors import DatabaseError
from sweeper.paths import Home
from sweeper.retry import retried
from sweeper.store.actions import Actions
from sweeper.store.adapters import Adapters
from sweeper.store.artifacts import Artifacts
from sweeper.store.connection import BUSY_TIMEOUT_S, Transactions, engine_on
from sweeper.store.decisions import Decisions
from sweeper.store.evaluations import Evaluations
from sweeper.store.events import Events
from sweeper.store.feedback import FeedbackStore
from sweeper.store.integrity import Integrity
from sweeper.store.leases import Leases
from sweeper.store.locks import StudyLocks
from sweeper.store.metrics import Metrics
from sweeper.store.orders import Orders
from sweeper.store.schema import is_there, prepare, require_current
from sweeper.store.studies import Studies
from sweeper.store.trials import Trials
from sweeper.store.workers import Workers


class Database:
    """An open database; a context manager that closes it. Threads may share it; processes open their own.

    Every call of its parts is one transaction, stored in full or not at all. A call about a study that does not exist
    raises ``StudyStateError``. Any call raises ``DatabaseError`` if the database is locked for too long, full,
    read-only, damaged, or gone; the next call tries again.

    Attributes:
        address: The file, or the server's database.
        actions: What people did.
        orders: What people ask of the runner of a study.
        leases: Which worker holds which trial.
        artifacts: The files of trials.
        decisions: What pruners decided.
        integrity: Checks of the database itself.
    """

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self.address = transactions.address
        self.studies = Studies(transactions)
        self.trials = Trials(transactions)
        self.metrics = Metrics(transactions)
        self.decisions = Decisions(transactions)
        self.evaluations = Evaluations(transactions)
        self.adapters = Adapters(transactions)
        self.events = Events(transactions)
        self.actions = Actions(transactions)
        self.feedback = FeedbackStore(transactions)
        self.orders = Orders(transactions)
        self.workers = Workers(transactions)
        self.leases = Leases(transactions)
        self.artifacts = Artifacts(transactions)
        self.integrity = Integrity(transactions)
        self._locks = StudyLocks(transactions.address, transactions.engine)

    @classmethod
    @retried
    def open(
        cls, address: Address, *, create: bool, read_only: bool = False, busy_timeout_s: float = BUSY_TIMEOUT_S
    ) -> Database:
        """Open a database and bring it to the current schema.

        Args:
            address: The SQLite file, or the server's database.
            create: Whether to make the file, or the tables on the server, if there are none.
            read_only: Whether to change nothing in it, not even its schema.
            busy_timeout_s: How long to wait for other processes' writes.

        Raises:
            DatabaseError: If it is not sweeper's, is from a newer sweeper (read-only: or from an older one), or cannot
                be used; it is unchanged.
        """
        address = address if isinstance(address, PostgresUrl) else address.absolute()
        if read_only:
            require_current(address, busy_timeout_s=busy_timeout_s)
        else:
            prepare(address, create=create, busy_timeout_s=busy_timeout_s)
        return cls(Transactions(address, engine_on(address, busy_timeout_s=busy_timeout_s, read_only=read_only)))

    @staticmethod
    @retried
    def exists(address: Address) -> bool:
        """Return whether there is a database at ``address``: the file, or our tables on the server.

        Raises:
            DatabaseError: If the server cannot be asked.
        """
        return is_there(address)

    def study_lock(self, study: str) -> AbstractContextManager[None]:
        """Return a block in which no other process or thread decides about a study; blocks may be nested.

        Raises:
            DatabaseError: On entering, if another process holds the lock for too long.
        """
        return self._locks.hold(study)

    def close(self) -> None:
        """Close every connection."""
        self._transactions.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def bind(home: Home, storage: SqliteStorage | PostgresStorage | None) -> None:
    """Bind a home to the database that a study asks for, if it asks for one, and make its tables.

    Raises:
        DatabaseError: If the home has another database, or the one asked for cannot be used; the home is unchanged.
    """
    if storage is None:
        return
    present = home.database
    if isinstance(storage, SqliteStorage):
        if isinstance(present, PostgresUrl):
            raise _refusal(home, f"{present}", "its own SQLite file")
        return
    asked = storage.url
    if isinstance(present, PostgresUrl):
        if present.identity != asked.identity:
            raise _refusal(home, f"{present}", f"{asked}")
        return
    if Database.exists(present):
        with Database.open(present, create=False) as database:
            studies = len(database.studies.all())
        if studies:
            raise DatabaseError(
                f"the studies of {home.folder} are in {present.name}, and this study asks for {asked}: bring them "
                f"over with `sweeper migrate-storage '{asked}'`, or set SWEEPER_HOME to another folder"
            )
    Database.open(asked, create=True).close()
    home.bind(asked)


def _refusal(home: Home, present: str, asked: str) -> DatabaseError:
    return DatabaseError(
        f"the studies of {home.folder} are in {present}, and this study asks for {asked}: leave `storage` out, or set "
        "SWEEPER_HOME to another folder"
    )
