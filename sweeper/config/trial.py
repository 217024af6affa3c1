"""The seam between search and training: a ``TrialSpec`` goes in, a ``TrialResult`` comes out."""

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
from sweeper.config.parameters import LORA_PARAMETERS, ParameterValue
from sweeper.config.rewards import RewardSources
from sweeper.config.technique import Technique
from sweeper.paths import TrialPaths


class Hyperparameters(Frozen):
    """A trial's configuration with every choice made: no ranges, no multiples, no ratios left out.

    ``trl`` holds further fields of the technique's TRL config by name.
    """

    learning_rate: float
    batch_size: int
    epochs: float
    warmup_steps: int | None = None
    warmup_ratio: float | None = None
    lr_scheduler: str = "linear"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    lora_rank: int = 16
    lora_alpha: float = 32.0
    lora_dropout: float = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"
    trl: dict[str, Any] = Field(default_factory=dict)


class TrialSpec(Frozen):
    """All that one trial needs, as plain data.

    Attributes:
        study: Name of the study.
        number: Number of the trial in its study, from 0.
        seed: Seeds adapter weights, data order and dropout.
        model_folder: Local folder of the base model, already resolved.
        train: Prepared training rows, JSONL with ``prompt`` and ``completion`` or ``text`` or ``messages``.
        validation: Prepared validation rows.
        hyperparameters: The configuration.
        backend: What does the training; the number of its processes made definite.
        device: ``cpu``, ``cuda`` or ``cuda:0``, already resolved.
        micro_batch: Rows per forward pass; None for the most that fits.
        reward_sources: Where the technique's rewards were found; None where it has none.
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
        """How many rows pass through the model for a row of the data: of a prompt, every answer to it."""
        default = self.technique.generations
        return int(self.hyperparameters.trl.get("num_generations", default)) if default > 1 else 1

    @property
    def rows_per_step(self) -> int:
        """How many rows pass through the model in an optimizer step."""
        return self.hyperparameters.batch_size * self.answers_per_row

    @property
    def parameters(self) -> dict[str, Any]:
        """The whole configuration by name: hyperparameters, without those the adapter lacks, and adapter options."""
        absent = set(LORA_PARAMETERS).difference(self.adapter.hyperparameters)
        values = self.hyperparameters.model_dump(mode="json", exclude=absent)
        return {**values, **self.adapter.model_dump(mode="json", include=set(self.adapter.options()))}


class Decision(StrEnum):
    """What a trial is told when it reports: to go on, or how it ends; ``wait`` says that the answer is still to come.

    ``wait`` crosses only between the processes of a trial: whoever runs the study lets it stand still.
    """

    CONTINUE = "continue"
    PRUNE = "prune"
    PAUSE = "pause"
    INTERRUPT = "interrupt"
    END = "end"
    WAIT = "wait"


class Outcome(StrEnum):
    """How a trial ended; a paused one has not: it waits at its rung, and goes on from there if it is promoted."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    PAUSED = "paused"
    DIVERGED = "diverged"
    INFEASIBLE = "infeasible"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    @property
    def is_open(self) -> bool:
        """Whether the trial has not ended: it was stopped, or waits at its rung."""
        return self in (Outcome.INTERRUPTED, Outcome.PAUSED)


class Report(Protocol):
    """The pruning seam: all that a trial knows of the search.

    Called after every optimizer step with ``loss``, ``learning_rate``, ``grad_norm`` and ``progress`` (0 to 1), and
    after every evaluation with the evaluation's metrics and ``progress``. Called from the thread that trains.
    """

    def __call__(self, step: int, metrics: Mapping[str, float]) -> Decision:
        """Take the metrics of ``step`` (optimizer steps, from 1) and say whether to go on."""
        ...


class TrialResult(Frozen):
    """How a trial ended, and what it cost.

    Attributes:
        value: The deciding metric at the best evaluation; None unless complete.
        metrics: All metrics of the best evaluation.
        best_step: Optimizer step of the best evaluation.
        steps: Optimizer steps taken.
        total_steps: Optimizer steps planned.
        epochs_trained: Passes over the training split, fractions counted.
        train_seconds: Wall-clock seconds of training, evaluations included; of trials that train at the same time on
            one base, each one's share.
        latency_ms: Milliseconds per generated token, one row at a time; None unless asked for.
        tokens: Training tokens seen, padding left out.
        peak_memory_bytes: Peak device memory on CUDA, peak resident memory of the process on the CPU; of trials that
            train at the same time, of all of them.
        micro_batch: Rows per forward pass at the end.
        adapter_bytes: Size of the saved adapter.
        total_parameters: Weights of the base and the adapter together.
        reason: Why it ended where it did; None for a complete trial.
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


HyperparameterValues = dict[str, ParameterValue]
"""Parameters by name as the sampler chose them, before they become ``Hyperparameters``."""
