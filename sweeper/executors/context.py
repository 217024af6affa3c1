"""Everything that running the trials of a study needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sweeper.config.model import ModelConfig
from sweeper.config.rewards import RewardSources
from sweeper.config.study import StudyConfig
from sweeper.config.trial import TrialSpec
from sweeper.data.splits import PreparedData
from sweeper.executors.artifact_store import ArtifactStore, NoArtifactStore, trial_name
from sweeper.executors.listener import Listener
from sweeper.executors.membership import WorkerMembership
from sweeper.executors.stop_request import StopRequest
from sweeper.models.facts import ModelFacts
from sweeper.paths import StudyPaths
from sweeper.search.study import Search
from sweeper.store import Database, Order, OrderState


@dataclass(frozen=True)
class StudyModel:
    """A base model of a study.

    Attributes:
        config: How the study names it.
        folder: Where it is.
        fingerprint: Its SHA-256.
        facts: Its sizes.
        tokens_per_row: Length of the longest training row in its tokens, cut at ``max_length``.
    """

    config: ModelConfig
    folder: Path
    fingerprint: str
    facts: ModelFacts
    tokens_per_row: int


@dataclass
class PendingOrders:
    """What people have asked of the runner of a study that is not done yet; see ``executors/lifecycle/orders.py``.

    Attributes:
        ending: The orders to end trials, by the number of the trial, which does it when it reports next.
        running: Trials that run in this process.
        changed: Whether there may be something to begin that there was not before.
        seen: The latest order that this process has obeyed, or that was answered before it came.
        paused: Whether the study is to stand still.
        paused_s: How long it stood still in this process.
        since: When this process took the study over (UTC).
    """

    ending: dict[int, Order] = field(default_factory=dict)
    running: set[int] = field(default_factory=set)
    changed: bool = False
    seen: int = 0
    paused: bool = False
    paused_s: float = 0.0
    since: datetime = field(default_factory=lambda: datetime.now(UTC))

    def stood_still(self, seconds: float) -> None:
        """Take that the study waited so long."""
        self.paused_s += seconds

    def clock(self) -> float:
        """Return the seconds of a clock that stands still while the study does."""
        return time.monotonic() - self.paused_s


@dataclass
class StudyContext:
    """All that running a study's trials needs.

    Attributes:
        config: The study; people may change its budget while it runs.
        paths: Its folder.
        database: Where everything is recorded.
        search: The ask/tell seam.
        data: The prepared splits.
        train_rows: Rows of the training split.
        models: The base models by name.
        device: ``cpu`` or ``cuda:N``.
        listener: Whoever watches.
        stop: Set when the user asks to stop.
        membership: The workers of the study, this process among them.
        reward_sources: Where the technique's rewards were found; None where it has none.
        n_workers: How many workers share the trials, as far as this one knows.
        artifact_store: Shared storage for trial files, for workers with homes of their own.
        pending_orders: User requests not yet carried out.
        keep_alive: Resets the watchdog; called at every step and during long waits.
    """

    config: StudyConfig
    paths: StudyPaths
    database: Database
    search: Search
    data: PreparedData
    train_rows: int
    models: Mapping[str, StudyModel]
    device: str
    listener: Listener
    stop: StopRequest
    membership: WorkerMembership
    reward_sources: RewardSources | None = None
    pending_orders: PendingOrders = field(default_factory=PendingOrders)
    keep_alive: Callable[[], None] = lambda: None
    n_workers: int = 1
    artifact_store: ArtifactStore = field(default_factory=NoArtifactStore)

    def alone(self) -> AbstractContextManager[None]:
        """Return a block in which no other worker begins, stops or takes over a trial; running ones may end meanwhile.

        Leases are to be read before the search there: a trial's lease goes after the search was told of its end.

        Raises:
            DatabaseError: On entering, if another process holds the study's turn for too long.
        """
        return self.database.study_lock(self.config.name)

    def keep_trial(self, number: int) -> None:
        """Let workers with homes of their own have the files of a trial as they are now."""
        self.artifact_store.keep(trial_name(number), self.paths.trial(number).folder)

    def fetch_trial(self, number: int) -> None:
        """Take the files of a trial as whoever ran it last has left them."""
        self.artifact_store.fetch(trial_name(number), self.paths.trial(number).folder)

    def forget_adapter(self, number: int) -> None:
        """Keep the adapter of a trial no more where workers with homes of their own have it from."""
        self.artifact_store.forget(trial_name(number), "adapter")

    def model_of(self, spec: TrialSpec) -> StudyModel:
        """Return the base model of a trial."""
        return self.models[spec.model.name]

    def answer(self, order: Order, state: OrderState, text: str) -> None:
        """Say what became of an order, to whoever gave it and to whoever watches."""
        self.database.orders.answer(self.config.name, order.id, state, text)
        about = "" if order.number is None else f" (trial {order.number})"
        self.listener.note(f"{order.actor} asked for {order.kind}{about}: {state}: {text}")
