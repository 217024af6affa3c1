"""The interface between search and training: ``TrialSpec`` in, ``TrialResult`` out."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field

from sweeper.config.adapter import Adapter
from sweeper.config.backend import TRL, Backend
from sweeper.config.base import Frozen
from sweeper.config.evaluation import EvaluationConfig
from sweeper.config.model import ModelConfig
from sweeper.config.parameters import LORA_PARAMETERS, Hyperparameters
from sweeper.config.rewards import RewardSources
from sweeper.config.technique import Technique
from sweeper.paths import TrialPaths


class TrialSpec(Frozen):
    """Everything that one trial needs, as plain data.

    Attributes:
        number: Number of the trial in its study, from 0.
        seed: Seeds adapter weights, data order and dropout.
        train: Prepared training rows, JSONL with ``prompt`` and ``completion`` or ``text`` or ``messages``.
        backend: The training backend, with a definite number of processes.
        device: ``cpu``, ``cuda`` or ``cuda:0``, already resolved.
        micro_batch: Rows per forward pass; None for the most that fits.
        reward_sources: Locations of the technique's rewards, if it has any.
        initial_adapter: A saved adapter of equal shape whose weights the trial starts from; None for new ones.
    """

    study: str
    number: int
    seed: int
    model: ModelConfig
    model_folder: Path
    technique: Technique
    adapter: Adapter
    train: Path
    validation: Path
    hyperparameters: Hyperparameters
    evaluation: EvaluationConfig
    backend: Backend = TRL()
    device: str
    micro_batch: int | None = None
    folder: Path
    reward_sources: RewardSources | None = None
    initial_adapter: Path | None = None

    @property
    def initial_trial(self) -> int | None:
        """The trial of the same study whose weights it starts from, if any."""
        return None if self.initial_adapter is None else TrialPaths(self.initial_adapter.parent).number

    @property
    def answers_per_row(self) -> int:
        """Rows in the model per row of the data: of a prompt, every answer to it."""
        default = self.technique.generations
        return int(self.hyperparameters.trl.get("num_generations", default)) if default > 1 else 1

    @property
    def rows_per_step(self) -> int:
        """Rows in the model per optimizer step."""
        return self.hyperparameters.batch_size * self.answers_per_row

    @property
    def parameters(self) -> dict[str, Any]:
        """The whole configuration by name: the adapter's hyperparameters and options."""
        absent = set(LORA_PARAMETERS).difference(self.adapter.hyperparameters)
        values = self.hyperparameters.model_dump(mode="json", exclude=absent)
        return {**values, **self.adapter.model_dump(mode="json", include=set(self.adapter.options()))}


class Decision(StrEnum):
    """The answer to a trial's report: continue, or how to end.

    ``wait`` means that the answer is pending; it is only sent between the processes of a trial.
    """

    CONTINUE = "continue"
    PRUNE = "prune"
    PAUSE = "pause"
    INTERRUPT = "interrupt"
    END = "end"
    WAIT = "wait"


class Outcome(StrEnum):
    """How a trial ended; a paused one waits at its rung and resumes from there if promoted."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    PAUSED = "paused"
    DIVERGED = "diverged"
    INFEASIBLE = "infeasible"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    @property
    def is_open(self) -> bool:
        """Whether the trial can still continue: it was stopped, or waits at its rung."""
        return self in (Outcome.INTERRUPTED, Outcome.PAUSED)


class Report(Protocol):
    """The pruning interface: all that a trial knows of the search.

    Called after every optimizer step with ``loss``, ``learning_rate``, ``grad_norm`` and ``progress`` (0 to 1), and
    after every evaluation with the evaluation's metrics and ``progress``. Called from the thread that trains.
    """

    def __call__(self, step: int, metrics: Mapping[str, float]) -> Decision:
        """Take the metrics of ``step`` (optimizer steps, from 1) and decide whether to continue."""
        ...


class TrialResult(Frozen):
    """The outcome and cost of a trial.

    Attributes:
        reason: Why it ended early; None for a complete trial.
        value: The deciding metric at the best evaluation; None unless complete.
        metrics: All metrics of the best evaluation, which was at optimizer step ``best_step``.
        steps: Optimizer steps taken, of ``total_steps`` planned.
        epochs_trained: Passes over the training split, fractions counted.
        train_seconds: Wall-clock seconds of training, evaluations included; of packed trials, each one's share.
        latency_ms: Milliseconds per generated token, one row at a time; None unless requested.
        tokens: Training tokens seen, without padding.
        peak_memory_bytes: Peak device memory on CUDA, peak resident memory of the process on the CPU; of packed
            trials, that of all of them.
        micro_batch: Rows per forward pass at the end.
        total_parameters: Weights of the base and the adapter together.
    """

    number: int
    outcome: Outcome
    reason: str | None = None
    value: float | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    best_step: int | None = None
    steps: int = 0
    total_steps: int = 0
    epochs_trained: float = 0.0
    device: str = "cpu"
    dtype: str | None = None
    attention: str | None = None
    started_at: str
    finished_at: str
    train_seconds: float = 0.0
    latency_ms: float | None = None
    tokens: int = 0
    peak_memory_bytes: int | None = None
    micro_batch: int | None = None
    adapter_bytes: int | None = None
    total_parameters: int | None = None
    adapter_sha256: str | None = None
