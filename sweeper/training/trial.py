"""One trial, from its specification to its result."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from typing import Any

from sweeper.config.trial import Decision, Outcome, Report, TrialResult, TrialSpec
from sweeper.errors import LeaseLost, UserError
from sweeper.paths import TrialPaths
from sweeper.training.adapters import peft_config
from sweeper.training.base_model import BaseModel
from sweeper.training.checkpoint import Checkpoint
from sweeper.training.device import reset_peak_memory
from sweeper.training.latency import milliseconds_per_token
from sweeper.training.micro_batch import MicroBatch
from sweeper.training.reporting import ReportingCallback
from sweeper.training.resumable_trainer import Checkpointer, CheckpointPolicy
from sweeper.training.techniques import build_trainer
from sweeper.training.trial_output import TrialOutput, TrialProgress
from sweeper.training.weights import Adapted, gathered, load_weights, put_back

Evaluate = Callable[[Adapted], dict[str, float]]
"""Measures further metrics on the validation split, beside the loss."""

PRUNED = "worse than other trials at the same progress"
STOPPED = "stopped by the user"
BY_HAND = "stopped by hand"


def train_trial(
    spec: TrialSpec,
    base: BaseModel,
    report: Report,
    micro_batch: int,
    evaluate: Evaluate | None = None,
    *,
    checkpoints: CheckpointPolicy | None = None,
    resume: bool = False,
) -> TrialResult:
    """Train one trial and write its adapter and result into its folder.

    A trial that is pruned, diverges, does not fit or fails is a result too; only what the user must fix is raised.
    An interrupted trial with checkpoints can resume: its curve is then that of one which never stopped. A backend that
    shards the weights never checkpoints. The base is left unchanged; ``micro_batch`` is the rows per forward pass at
    the start.

    Raises:
        UserError: If the data or the configuration is at fault, or the checkpoint is damaged.
    """
    paths = TrialPaths(spec.folder)
    checkpoint = Checkpoint.read(paths, base.device) if resume else None
    run = _Run(spec, base, micro_batch, checkpoint, checkpoints)
    result = run.through(report, evaluate)
    if base.backend.ranks.leads and not result.outcome.is_open:
        shutil.rmtree(paths.frozen, ignore_errors=True)
    return result


class _Run:
    """One training from start to result."""

    def __init__(
        self,
        spec: TrialSpec,
        base: BaseModel,
        micro_batch: int,
        checkpoint: Checkpoint | None,
        checkpoints: CheckpointPolicy | None,
    ) -> None:
        self.spec = spec
        self.base = base
        self.output = TrialOutput(spec, base)
        self.checkpoint = checkpoint
        several = base.backend.ranks.size > 1
        rows = min(micro_batch, spec.rows_per_step)
        if checkpoint is not None:  # other parts draw other dropout masks; fewer rows only where no more fit now
            rows = min(rows, checkpoint.progress.micro_batch or rows)
        self.micro_batch = MicroBatch(rows, fixed=several)
        self.checkpoints = checkpoints
        self.keeper: Checkpointer | None = None
        if checkpoints is not None and base.backend.keeps:
            self.keeper = Checkpointer(checkpoints, self.output, lambda: self.progress)
        self.trainer: Any = None
        self.clock = time.monotonic()

    def through(self, report: Report, evaluate: Evaluate | None) -> TrialResult:
        """Train from the beginning or the checkpoint to whatever end, and return the result."""
        spec, base = self.spec, self.base
        if self.checkpoint is None:
            self.output.begin()
        else:
            self.checkpoint.put_into(self.output)
            self.clock -= self.checkpoint.progress.seconds
        reset_peak_memory(base.device)
        try:
            config = peft_config(spec.adapter, spec.hyperparameters, spec.model_folder, spec.technique.head)
            with base.adapted(config, spec.seed) as model:
                decision = self._train(model, report, evaluate)
                return self._finish(model, decision)
        except Exception as error:
            if self.checkpoints is not None and not isinstance(error, UserError | LeaseLost):
                self.checkpoints.before()  # raises if the trial was reassigned to another worker
            return self.output.failed(self.progress, error)

    def _train(self, model: Adapted, report: Report, evaluate: Evaluate | None) -> Decision:
        best, points, keeper = self.output.best, self.spec.evaluation.points, self.keeper
        callback = ReportingCallback(self._untimed(report), best, points, evaluate, keeper.is_due if keeper else None)
        self.trainer = build_trainer(self.spec, self.base, model, self.micro_batch, callback)
        self.trainer.checkpoint_with(callback, keeper, self.base.initial is not None)
        if self.checkpoint is not None and not self.trainer.resume_from(self.checkpoint):
            self.checkpoint = None
            self.output.begin()
            best.reset()
        if self.checkpoint is None and self.spec.initial_adapter is not None:
            load_weights(model, self.spec.initial_adapter)
        self.trainer.run()
        return callback.decision

    def _untimed(self, report: Report) -> Report:
        """Exclude reports from the trial's time: the study may be paused in one."""

        def timed(step: int, metrics: Mapping[str, float]) -> Decision:
            begun = time.monotonic()
            try:
                return report(step, metrics)
            finally:
                self.clock += time.monotonic() - begun

        return timed

    def _finish(self, model: Adapted, decision: Decision) -> TrialResult:
        if self.checkpoints is not None and self.base.backend.ranks.leads:
            self.checkpoints.before()
        if decision in (Decision.PRUNE, Decision.PAUSE):  # no rung to wait at here
            return self.output.result(self.progress, Outcome.PRUNED, PRUNED)
        if decision is Decision.END:
            return self.output.result(self.progress, Outcome.PRUNED, BY_HAND)
        if decision is Decision.INTERRUPT:
            return self.output.result(self.progress, Outcome.INTERRUPTED, STOPPED)
        put_back(model, self.output.best.weights)
        timed = "latency" in self.spec.evaluation.objectives
        latency = milliseconds_per_token(model, self.base.tokenizer) if timed else None
        with gathered(model):
            return self.output.complete(self.progress, model, latency)

    @property
    def progress(self) -> TrialProgress:
        state = getattr(self.trainer, "state", None)
        return TrialProgress(
            steps=state.global_step if state else 0,
            total_steps=max(state.max_steps, 0) if state else 0,
            epochs=float(state.epoch or 0.0) if state else 0.0,
            tokens=self.trainer.tokens_seen if self.trainer is not None else 0,
            seconds=time.monotonic() - self.clock,
            micro_batch=self.micro_batch.rows,
        )
