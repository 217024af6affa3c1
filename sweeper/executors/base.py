"""What an executor is given, and what it promises."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from sweeper.config.model import ModelConfig
from sweeper.config.rewards import RewardSources
from sweeper.config.study import StudyConfig
from sweeper.config.trial import TrialResult, TrialSpec
from sweeper.data.splits import PreparedData
from sweeper.executors.artifact_store import ArtifactStore, NoArtifactStore, trial_name
from sweeper.executors.membership import WorkerMembership
from sweeper.executors.stop_request import StopRequest
from sweeper.models.facts import ModelFacts
from sweeper.paths import StudyPaths
from sweeper.search.candidate import Candidate
from sweeper.search.study import Search
from sweeper.store import Database, Order, OrderState
from sweeper.training.base_model import BaseModel


class Listener(Protocol):
    """Whoever watches a study: the live view, plain lines, or nobody. Called from the thread that runs the study."""

    def stage(self, text: str, fraction: float | None = None) -> None:
        """A long step began or moved on; ``fraction`` is 0 to 1, None where it is not known."""

    def trial_started(self, candidate: Candidate, spec: TrialSpec, total_steps: int) -> None:
        """A trial begins, planned to take ``total_steps`` optimizer steps."""

    def trial_reported(self, number: int, step: int, metrics: Mapping[str, float]) -> None:
        """A trial took a step or was evaluated."""

    def trial_ended(self, result: TrialResult) -> None:
        """A trial ended, and its result is in the database."""

    def trial_left(self, number: int) -> None:
        """A trial was reassigned to another worker."""

    def note(self, text: str) -> None:
        """Something the user should know."""

    def budget_changed(self, config: StudyConfig) -> None:
        """The study goes on with another budget."""


class SilentListener:
    """Nobody watches."""

    def stage(self, text: str, fraction: float | None = None) -> None:
        """Ignore it."""

    def trial_started(self, candidate: Candidate, spec: TrialSpec, total_steps: int) -> None:
        """Ignore it."""

    def trial_reported(self, number: int, step: int, metrics: Mapping[str, float]) -> None:
        """Ignore it."""

    def trial_ended(self, result: TrialResult) -> None:
        """Ignore it."""

    def trial_left(self, number: int) -> None:
        """Ignore it."""

    def note(self, text: str) -> None:
        """Ignore it."""

    def budget_changed(self, config: StudyConfig) -> None:
        """Ignore it."""


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
    """What people have asked of the runner of a study that is not done yet; see ``executors/control.py``.

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


class Executor(Protocol):
    """Runs the trials of a study until the search or its budget ends, or the user asks to stop.

    An implementation promises:

    - Every trial that it starts is in the database before its first step, and its result is on disk, then in the
      database, then told to the search, in this order: after a crash at any instant ``reclaim`` finds the rest.
    - A trial's own result depends on its specification alone, not on what ran before it or beside it.
    - A failed trial ends itself and nothing else; faults of the user's making (``UserError``) end the study.
    - When ``stop`` is set it ends the step under way and returns soon after.
    - Trials that an earlier process left frozen are gone on with, or begun again where it cannot do that.
    - Other workers may run trials of the same study at once: it holds each of its trials by a lease, drops one whose
      lease it has lost without a word of it to anyone, and returns only when nobody trains any more.
    """

    def run(self, context: StudyContext) -> None:
        """Run trials until there is none left to run."""

    def base(self, context: StudyContext, spec: TrialSpec) -> BaseModel:
        """Return the base model of a trial, for what is done after the search; the one before may be gone then."""
