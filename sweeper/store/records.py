"""The records that queries return: frozen plain values, independent of the database session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sweeper.config.trial import Outcome


class StudyState(StrEnum):
    """The state of a study."""

    RUNNING = "running"
    PAUSED = "paused"
    INTERRUPTED = "interrupted"
    FINISHED = "finished"


class TrialKind(StrEnum):
    """The reason for a trial: a known-good start, the sampler's choice, or a rerun of a good one with a fresh seed."""

    ENQUEUED = "enqueued"
    SAMPLED = "sampled"
    CONFIRMATION = "confirmation"


class Stage(StrEnum):
    """The stage of an adapter version; the registry has the moves between stages."""

    CANDIDATE = "candidate"
    STAGING = "staging"
    PRODUCTION = "production"
    ARCHIVED = "archived"
    DELETED = "deleted"


class OrderKind(StrEnum):
    """The kinds of orders to the runner of a study."""

    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    STOP_TRIAL = "stop_trial"
    ENQUEUE = "enqueue"
    CLONE = "clone"
    BUDGET = "budget"


class OrderState(StrEnum):
    """The state of an order."""

    WAITING = "waiting"
    DONE = "done"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True)
class StudyRecord:
    """A study: its file as written, its configuration as resolved, and its environment. Times are in UTC.

    Attributes:
        created_at: When it was first run.
        started_at: When it was last started or resumed.
        ended_at: When it was last interrupted or finished; None while running.
        file_text: The study file, character by character, without secrets.
        config: The whole study with every default, as JSON.
        space: The resolved space: the preset that was picked, why, and every range.
        sweeper_version: The version that created the study.
        packages: Versions of the packages that matter, and of the code.
        data_sha256: SHA-256 of every split by name.
        base_model: Name of the base model; of several, all names.
        base_model_fingerprint: Hash of the base model's weights and config; of several, a hash over theirs.
        archived_at: When it was hidden; None if it is not.
        changes: Grows with every write about the study, so what was read is current while it is unchanged.
    """

    name: str
    state: StudyState
    created_at: datetime
    started_at: datetime
    ended_at: datetime | None
    file_name: str
    file_text: str
    config: dict[str, Any]
    space: dict[str, Any]
    seed: int
    sweeper_version: str
    packages: dict[str, str]
    data_sha256: dict[str, str]
    base_model: str
    base_model_fingerprint: str
    tags: list[str] = field(default_factory=list)
    archived_at: datetime | None = None
    changes: int = 0


@dataclass(frozen=True)
class TrialRecord:
    """A trial: its parameters and, once it has ended, its ``TrialResult``.

    Attributes:
        confirms: Number of the trial that this one reruns with a fresh seed, if any.
        restarts: Number of the interrupted trial that this one runs again, if any.
        clones: Number of the trial whose configuration, changed by hand, this one runs, if any.
        initial: Number of the trial whose weights it started from, if any.
        parameters: The resolved hyperparameters, with the adapter or model that was chosen, where there was a choice.
        base_model: Name of its base model; None if an early version of sweeper stored it.
        base_model_fingerprint: Hash of its base model's weights and config; None likewise.
        outcome: None while the trial runs.
    """

    number: int
    kind: TrialKind
    confirms: int | None
    restarts: int | None
    clones: int | None
    initial: int | None
    seed: int
    parameters: dict[str, Any]
    base_model: str | None
    base_model_fingerprint: str | None
    outcome: Outcome | None
    reason: str | None
    value: float | None
    metrics: dict[str, float]
    best_step: int | None
    steps: int
    total_steps: int
    epochs_trained: float
    device: str
    dtype: str | None
    attention: str | None
    started_at: datetime
    finished_at: datetime | None
    train_seconds: float
    latency_ms: float | None
    tokens: int
    peak_memory_bytes: int | None
    micro_batch: int | None
    adapter_bytes: int | None
    total_parameters: int | None
    adapter_sha256: str | None


@dataclass(frozen=True)
class MetricPoint:
    """One metric of one trial at one optimizer step; ``value`` may be NaN or infinite.

    Attributes:
        seconds: Since the trial began, not counting the time it was stopped; None if it was not measured.
    """

    number: int
    step: int
    name: str
    value: float
    seconds: float | None = None


@dataclass(frozen=True)
class PruningDecision:
    """A pruner's decision on a trial, recorded when it is taken.

    Attributes:
        progress: Where in its training the trial was judged, in per cent.
        pruner: Kind of the pruner.
        rung: The rung that the trial had reached, in per cent; None if the pruner has none.
        value: The trial's value that was compared.
        rank: Its rank among itself and its peers, 1 for the best; None if it was not ranked.
        peers: Number of trials it was compared with.
        continuing: How many of them all continue; None if that is not what decides.
        threshold: The value it had to reach; None if any would have done.
        pruned: Whether it was to be pruned, or paused where pruned trials may be promoted.
        reason: The decision in words.
        compared: Numbers and values of the peers, best first; only the best of many.
    """

    progress: int
    pruner: str
    rung: int | None
    value: float
    rank: int | None
    peers: int
    continuing: int | None
    threshold: float | None
    pruned: bool
    reason: str
    compared: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class ScoreRecord:
    """A metric on a split, with its confidence interval and its paired difference to the base model's."""

    metric: str
    score: float
    low: float | None = None
    high: float | None = None
    diff_to_base: float | None = None
    diff_low: float | None = None
    diff_high: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """All scores of one subject on one split.

    Attributes:
        number: The trial; None if the subject is a base model.
        scores: One per metric.
        base: The base model that is the subject, or that of the trial; empty in a study with only one.
    """

    number: int | None
    split: str
    scores: tuple[ScoreRecord, ...]
    base: str = ""

    @property
    def subject(self) -> str:
        """The subject in words."""
        return f"base model {self.base}".rstrip() if self.number is None else f"trial {self.number}"


@dataclass(frozen=True)
class Example:
    """One scored example: its input, the expected and the generated output.

    Attributes:
        scores: Score of this example alone, by metric.
        statistics: The terms that a metric's score is computed from, by metric (see ``evaluation.metrics.base``); None
            if an early version of sweeper stored the example.
    """

    index: int
    prompt: str
    reference: str
    generated: str
    scores: Mapping[str, float]
    statistics: Mapping[str, Sequence[float]] | None = None


@dataclass(frozen=True)
class EventRecord:
    """An event of a study, or of its trial ``number``."""

    number: int | None
    at: datetime
    kind: str
    message: str
    data: dict[str, Any] | None


@dataclass(frozen=True)
class AdapterRecord:
    """A registered adapter version.

    Attributes:
        path: Its folder, relative to the home, with forward slashes.
        sha256: SHA-256 of the weights.
        bytes: Size of all its files.
        files: SHA-256 of every file by name.
        scores: Its scores by split and metric.
        lineage: The fields of ``registry.Lineage``.
    """

    name: str
    version: int
    study: str
    number: int
    stage: Stage
    path: str
    sha256: str
    bytes: int
    files: dict[str, str]
    scores: dict[str, Any]
    lineage: dict[str, Any]
    created_at: datetime
    tags: list[str] = field(default_factory=list)
    note: str = ""


@dataclass(frozen=True)
class Action:
    """An action of a person on a study, a trial or an adapter version.

    Attributes:
        actor: A user of the dashboard, or the operating system's user of the command line.
        kind: What was done, in one word, such as ``promote``.
        message: What was done, in words.
        forced: Whether a rule was overruled.
        data: Further facts.
    """

    at: datetime
    actor: str
    kind: str
    message: str
    study: str | None = None
    number: int | None = None
    adapter: str | None = None
    version: int | None = None
    forced: bool = False
    data: dict[str, Any] | None = None


@dataclass(frozen=True)
class Order:
    """An order of a person to a study's runner.

    Attributes:
        id: Its number in the database; orders are followed in this order.
        number: The trial that it is about, if any.
        data: What is asked, by name.
        answer: The runner's answer; None while it waits.
    """

    id: int
    number: int | None
    at: datetime
    actor: str
    kind: OrderKind
    data: dict[str, Any]
    state: OrderState
    answered_at: datetime | None
    answer: str | None


@dataclass(frozen=True)
class Feedback:
    """A person's feedback on an answer.

    Attributes:
        adapter: The adapter that gave it; None for the bare base model.
        good: Thumb up or down; None if only a correction was given.
        correction: The right answer.
        settings: The sampling settings of the answer.
    """

    at: datetime
    actor: str
    adapter: str | None
    version: int | None
    base_model: str
    prompt: str
    answer: str
    good: bool | None
    correction: str | None
    settings: dict[str, Any]


@dataclass(frozen=True)
class WorkerRecord:
    """A process that runs trials of a study.

    Attributes:
        token: Identifies it; never used again.
        host: Its machine and process number space, see ``machine.this_host``.
        process_started: By ``machine.process_started``; tells it from a later process with the same ``pid``.
        beat: A number that grows while it lives.
        expires_at: Until when it counts as alive without another heartbeat, by its own clock.
    """

    token: str
    host: str
    pid: int
    process_started: float
    device: str
    beat: int
    joined_at: datetime
    expires_at: datetime


@dataclass(frozen=True)
class Lease:
    """The lease by which a worker (its token) holds a trial; ``number`` is ``SCORING`` for the final scoring."""

    number: int
    worker: str
    taken_at: datetime


@dataclass(frozen=True)
class Artifact:
    """A file of a trial as it was written; ``path`` is relative to the trial's folder, with forward slashes."""

    number: int
    path: str
    bytes: int
    sha256: str
