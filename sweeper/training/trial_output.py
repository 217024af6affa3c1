"""A trial's output, whatever the executor: its folder, its adapter and its result."""

from __future__ import annotations

import shutil
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from sweeper.config.trial import Outcome, TrialResult, TrialSpec
from sweeper.errors import DivergedError, LeaseLost, OutOfMemoryError, StudyInterrupted, UserError
from sweeper.files.atomic import new_folder, write_atomically
from sweeper.files.checksums import sha256_of
from sweeper.paths import TrialPaths
from sweeper.redact import redact
from sweeper.retry import retried
from sweeper.training.base_model import BaseModel
from sweeper.training.device import peak_memory_bytes
from sweeper.training.micro_batch import is_out_of_memory
from sweeper.training.reporting import BestEvaluation
from sweeper.training.weights import Adapted, count_weights, save_weights


@dataclass
class TrialProgress:
    """The progress of a trial.

    Attributes:
        steps: Optimizer steps taken.
        total_steps: Optimizer steps planned; 0 while unknown.
        epochs: Passes over the training split, with fractions.
        tokens: Training tokens seen, without padding.
        seconds: Training time, evaluations included; of a packed trial its share of the device's time.
        micro_batch: Rows per forward pass.
    """

    steps: int = 0
    total_steps: int = 0
    epochs: float = 0.0
    tokens: int = 0
    seconds: float = 0.0
    micro_batch: int | None = None


@dataclass
class TrialOutput:
    """A trial's folder and its result to be. Of several processes only rank 0 writes."""

    spec: TrialSpec
    base: BaseModel
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        self.paths = TrialPaths(self.spec.folder)
        self.best = BestEvaluation(self.spec.evaluation.metric, maximize=self.spec.evaluation.direction == "maximize")

    def begin(self) -> None:
        """Make the folder, without leftovers of a study of the same name whose database is gone."""
        if not self.base.backend.ranks.leads:
            return
        self.paths.result.unlink(missing_ok=True)
        shutil.rmtree(self.paths.adapter, ignore_errors=True)
        shutil.rmtree(self.paths.frozen, ignore_errors=True)
        write_atomically(self.paths.spec, self.spec.model_dump_json(indent=2) + "\n")

    def complete(self, progress: TrialProgress, model: Adapted, latency_ms: float | None) -> TrialResult:
        """Save the adapter on ``model`` and return the result of a completed trial."""
        leads = self.base.backend.ranks.leads
        size, digest = save_adapter(self.base, model, self.paths.adapter) if leads else (None, None)
        kept = {"latency_ms": latency_ms, "adapter_bytes": size, "adapter_sha256": digest}
        count = count_weights(model)
        return self.result(progress, Outcome.COMPLETE, None, value=self.best.value, total_parameters=count, **kept)

    def result(self, progress: TrialProgress, outcome: Outcome, reason: str | None, **more: Any) -> TrialResult:
        """Return the result of a trial with this outcome, and write it into the folder."""
        device = self.base.device
        result = TrialResult(
            number=self.spec.number,
            outcome=outcome,
            reason=reason,
            metrics=self.best.metrics,
            best_step=self.best.step,
            steps=progress.steps,
            total_steps=progress.total_steps,
            epochs_trained=progress.epochs,
            device=device if device == "cpu" else f"{device} ({torch.cuda.get_device_name(torch.device(device))})",
            dtype=str(self.base.dtype).removeprefix("torch."),
            attention=self.base.attention,
            started_at=self.started.isoformat(),
            finished_at=datetime.now(UTC).isoformat(),
            train_seconds=progress.seconds,
            tokens=progress.tokens,
            peak_memory_bytes=peak_memory_bytes(device),
            micro_batch=progress.micro_batch,
            **more,
        )
        if self.base.backend.ranks.leads:
            write_atomically(self.paths.result, result.model_dump_json(indent=2) + "\n")
        return result

    def failed(self, progress: TrialProgress, error: Exception) -> TrialResult:
        """Return the result of a trial that an error ended.

        Raises:
            UserError: The error itself: it ends the study.
            LeaseLost: The error itself: the trial is another worker's.
            StudyInterrupted: The error itself: the user stopped while the disk was full.
        """
        if isinstance(error, UserError | LeaseLost | StudyInterrupted):
            raise error
        if isinstance(error, OutOfMemoryError):
            return self.result(progress, Outcome.INFEASIBLE, str(error))
        if isinstance(error, DivergedError):
            return self.result(progress, Outcome.DIVERGED, str(error))
        text = "".join(traceback.format_exception(error))
        write_atomically(self.paths.error(self.base.backend.ranks.rank), redact(text))
        outcome = Outcome.INFEASIBLE if is_out_of_memory(error) else Outcome.FAILED  # outside of a step, e.g. Adam's
        return self.result(progress, outcome, redact(f"{type(error).__name__}: {error}")[:2000])


@retried
def save_adapter(base: BaseModel, model: Adapted, folder: Path) -> tuple[int, str]:
    """Write what was trained, all of it or nothing; return its size in bytes and its SHA-256."""
    with new_folder(folder) as filled:
        name = save_weights(model, filled, tokenizer=base.tokenizer, dtype=base.dtype, initial=base.initial).name
    return (folder / name).stat().st_size, sha256_of(folder / name)
