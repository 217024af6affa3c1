"""One trial, from its specification to its result."""

from __future__ import annotations

import hashlib
import shutil
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, set_peft_model_state_dict

from sweeper.config.trial import Decision, Outcome, Report, TrialResult, TrialSpec
from sweeper.errors import DivergedError, OutOfMemoryError, UserError
from sweeper.paths import TrialPaths, write_atomically
from sweeper.redact import redact
from sweeper.training.adapters import peft_config
from sweeper.training.base_model import BaseModel
from sweeper.training.device import peak_memory_bytes, reset_peak_memory
from sweeper.training.latency import milliseconds_per_token
from sweeper.training.micro_batch import MicroBatch, is_out_of_memory
from sweeper.training.reporting import Best, ReportingCallback
from sweeper.training.techniques.sft import build_sft

Evaluate = Callable[[PeftModel], dict[str, float]]
"""Measures the task's own metrics on the validation split, beside the loss."""


def train_trial(
    spec: TrialSpec, base: BaseModel, report: Report, micro_batch: int, evaluate: Evaluate | None = None
) -> TrialResult:
    """Train one trial and write its adapter and result into its folder.

    A trial that is pruned, diverges, does not fit or fails is a result too; only what the user must mend is raised.

    Args:
        spec: What to train.
        base: The base model, left as it was found.
        report: Told every step and every evaluation; decides whether to go on.
        micro_batch: Rows per forward pass to begin with.
        evaluate: Further validation metrics; None where the loss is all that is asked for.

    Raises:
        UserError: If the data or the configuration is at fault.
    """
    paths = TrialPaths(spec.folder)
    paths.result.unlink(missing_ok=True)  # of a study of the same name whose database is gone
    shutil.rmtree(paths.adapter, ignore_errors=True)
    write_atomically(paths.spec, spec.model_dump_json(indent=2) + "\n")
    run = _Run(spec, base, micro_batch)
    reset_peak_memory(base.device)
    try:
        with base.adapted(peft_config(spec.adapter, spec.hyperparameters), spec.seed) as model:
            decision = run.train(model, report, evaluate)
            result = run.finish(model, decision, paths)
    except OutOfMemoryError as error:
        result = run.result(Outcome.INFEASIBLE, str(error))
    except DivergedError as error:
        result = run.result(Outcome.DIVERGED, str(error))
    except UserError:
        raise
    except Exception as error:
        write_atomically(spec.folder / "error.txt", redact(traceback.format_exc()))
        outcome = Outcome.INFEASIBLE if is_out_of_memory(error) else Outcome.FAILED  # outside of a step, e.g. Adam's
        result = run.result(outcome, redact(f"{type(error).__name__}: {error}")[:2000])
    write_atomically(paths.result, result.model_dump_json(indent=2) + "\n")
    return result


class _Run:
    """The state of one training: what has been seen so far, whatever happens next."""

    def __init__(self, spec: TrialSpec, base: BaseModel, micro_batch: int) -> None:
        self.spec = spec
        self.base = base
        self.micro_batch = MicroBatch(min(micro_batch, spec.hyperparameters.batch_size))
        self.best = Best(spec.evaluation.metric, maximize=spec.evaluation.direction == "maximize")
        self.trainer: Any = None
        self.started = datetime.now(UTC)
        self.clock = time.monotonic()

    def train(self, model: PeftModel, report: Report, evaluate: Evaluate | None) -> Decision:
        callback = ReportingCallback(report, self.best, self.spec.evaluation.points, evaluate)
        self.trainer = build_sft(self.spec, self.base, model, self.micro_batch, callback)
        self.trainer.train()
        return callback.decision

    def finish(self, model: PeftModel, decision: Decision, paths: TrialPaths) -> TrialResult:
        if decision is Decision.PRUNE:
            return self.result(Outcome.PRUNED, "worse than other trials at the same progress")
        if decision is Decision.INTERRUPT:
            return self.result(Outcome.INTERRUPTED, "stopped by the user")
        set_peft_model_state_dict(model, self.best.weights)
        timed = "latency" in self.spec.evaluation.objectives
        latency = milliseconds_per_token(model, self.base.tokenizer) if timed else None
        size, digest = _save(model, paths.adapter)
        return self.result(Outcome.COMPLETE, None, latency_ms=latency, adapter_bytes=size, adapter_sha256=digest)

    def result(self, outcome: Outcome, reason: str | None, **more: Any) -> TrialResult:
        state = getattr(self.trainer, "state", None)
        complete = outcome is Outcome.COMPLETE
        return TrialResult(
            number=self.spec.number,
            outcome=outcome,
            reason=reason,
            value=self.best.value if complete else None,
            metrics=self.best.metrics,
            best_step=self.best.step,
            steps=state.global_step if state else 0,
            total_steps=max(state.max_steps, 0) if state else 0,
            epochs_trained=float(state.epoch or 0.0) if state else 0.0,
            device=_device_name(self.base.device),
            dtype=str(self.base.dtype).removeprefix("torch."),
            attention=self.base.attention,
            started_at=self.started.isoformat(),
            finished_at=datetime.now(UTC).isoformat(),
            train_seconds=time.monotonic() - self.clock,
            tokens=self.trainer.tokens_seen if self.trainer is not None else 0,
            peak_memory_bytes=peak_memory_bytes(self.base.device),
            micro_batch=self.micro_batch.rows,
            **more,
        )


def _save(model: PeftModel, folder: Path) -> tuple[int, str]:
    """Write the adapter so that a crash leaves all of it or nothing; return its size in bytes and its SHA-256."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary, safe_serialization=True)
    (temporary / "README.md").unlink(missing_ok=True)  # PEFT's empty card; an export writes a real one
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    weights = folder / "adapter_model.safetensors"
    with weights.open("rb") as file:
        return weights.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


def _device_name(device: str) -> str:
    return device if device == "cpu" else f"{device} ({torch.cuda.get_device_name(torch.device(device))})"
