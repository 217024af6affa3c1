"""What the store answers with: frozen plain values, so that no database object leaves the room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sweeper.config.trial import Outcome


class StudyState(StrEnum):
    """Where a study stands."""

    RUNNING = "running"
    PAUSED = "paused"
    INTERRUPTED = "interrupted"
    FINISHED = "finished"


class TrialKind(StrEnum):
    """Why a trial was run: a known-good start, the sampler's choice, or a re-run of a good one with a fresh seed."""

    ENQUEUED = "enqueued"
    SAMPLED = "sampled"
    CONFIRMATION = "confirmation"


class Stage(StrEnum):
    """Where an adapter version stands; the moves between stages are the registry's."""

    CANDIDATE = "candidate"
    STAGING = "staging"
    PRODUCTION = "production"
    ARCHIVED = "archived"
    DELETED = "deleted"


class OrderKind(StrEnum):
    """What a person can ask of the runner of a study."""

    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    STOP_TRIAL = "stop_trial"
    ENQUEUE = "enqueue"
    CLONE = "clone"
    BUDGET = "budget"


class OrderState(StrEnum):
    """What became of an order."""

    WAITING = "waiting"
    DONE = "done"
    REFUSED = "refused"


@dataclass(frozen=True)
class StudyRecord:
    """A study: its file as written, its configuration as resolved, and what it was run with.

    Attributes:
        name: Unique name.
        state: Running, paused, interrupted or finished.
        created_at: When it was first run (UTC).
        started_at: When it was last started or resumed (UTC).
        ended_at: When it was last interrupted or finished (UTC); None while running.
        file_name: Name of the study file.
        file_text: The study file, character by character (secrets removed).
        config: The whole study with every default, as JSON.
        space: The resolved space: the preset that was picked, why, and every range.
        seed: Seeds sampling and trials.
        sweeper_version: Version that created the study.
        packages: Versions of the packages that matter, and of the code.
        data_sha256: SHA-256 of every split by name.
        base_model: Name of the base model; of several, all names.
        base_model_fingerprint: Hash of the base model's weights and config; of several, a hash over theirs.
        tags: Words that people gave it.
        archived_at: When it was put out of sight (UTC); None for one in sight.
        changes: Grows with everything that is written about the study: what was read stays true while it stands.
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
    """A trial: what was asked, and, once it ended, all of its ``TrialResult``.

    Attributes:
        confirms: Number of the trial that this one re-runs with a fresh seed; None for others.
        restarts: Number of the interrupted trial that this one takes up again; None for others.
        clones: Number of the trial whose configuration, changed by hand, this one runs; None for others.
        initial: Number of the trial whose weights it began from; None for one that began afresh.
        parameters: The resolved hyperparameters, with the adapter or model that was chosen where there was a choice.
        base_model: Name of its base model; None for trials of before studies could have several.
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
        seconds: Since the trial was begun, times in which it was stopped left out; None where it was not measured.
    """

    number: int
    step: int
    name: str
    value: float
    seconds: float | None = None


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
        number: The trial; None where the subject is a base model.
        split: What it was scored on.
        scores: One a metric.
        base: The base model that is the subject, or that the trial stands on; empty in a study with one only.
    """

    number: int | None
    split: str
    scores: tuple[ScoreRecord, ...]
    base: str = ""

    @property
    def subject(self) -> str:
        """What was scored, in words."""
        return f"base model {self.base}".rstrip() if self.number is None else f"trial {self.number}"


@dataclass(frozen=True)
class Example:
    """One scored example: what went in, what was due, what came out.

    Attributes:
        scores: Score of this example alone, by metric.
        statistics: What the metrics' scores are sums of, by metric (see ``evaluation.metrics.base``); None for one that
            was stored before they were kept.
    """

    index: int
    prompt: str
    reference: str
    generated: str
    scores: Mapping[str, float]
    statistics: Mapping[str, Sequence[float]] | None = None


@dataclass(frozen=True)
class EventRecord:
    """Something that happened in a study, or in its trial ``number``."""

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
        lineage: Where it came from: study, trial, configuration, base model, data, seeds, packages, parent version.
        tags: Words that people gave it.
        note: What people say of it.
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
    """Something that a person did.

    Attributes:
        actor: Who: a user of the dashboard, or the operating system's of the command line.
        kind: What was done, as one word, such as ``promote``.
        study: The study it was done to, if any.
        number: The trial, if any.
        adapter: The adapter it was done to, if any.
        version: Its version.
        forced: Whether a rule was overruled.
        message: What was done, in words.
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
    """Something that a person asks of a study's runner.

    Attributes:
        id: Its number in the database; orders are obeyed in this order.
        number: The trial that it is about, if any.
        data: What is asked, by name.
        answer: What the runner said to it; None while it waits.
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
    """What a person thought of an answer.

    Attributes:
        adapter: The adapter that gave it; None for the bare base model.
        version: Its version.
        good: Thumb up or down; None where only a correction was given.
        correction: The answer that would have been right.
        settings: How the answer was sampled.
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
        token: What it is known by, unique for ever.
        host: Its machine, and on it the space of process numbers that ``pid`` is from.
        pid: Its process.
        process_started: When that began, by a clock of that machine; tells it from a later one of the same number.
        device: What it trains on.
        beat: A number that grows while it lives.
        expires_at: Until when it is believed to live without another word, by its own clock.
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
    """That a worker holds a trial.

    Attributes:
        number: The trial; ``SCORING`` for the final scoring.
        worker: The token of the worker.
    """

    number: int
    worker: str
    taken_at: datetime


@dataclass(frozen=True)
class Artifact:
    """A file of a trial, as it was when it was written.

    Attributes:
        number: The trial.
        path: Where it is in the trial's folder, with ``/`` between its parts.
        bytes: Its length.
        sha256: Its SHA-256, in hexadecimal.
    """

    number: int
    path: str
    bytes: int
    sha256: str
