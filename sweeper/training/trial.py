"""One trial, from its specification to its result."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from sweeper.config.trial import Decision, Outcome, Report, TrialResult, TrialSpec
from sweeper.training.adapters import peft_config
from sweeper.training.base_model import BaseModel
from sweeper.training.device import reset_peak_memory
from sweeper.training.latency import milliseconds_per_token
from sweeper.training.micro_batch import MicroBatch
from sweeper.training.reporting import ReportingCallback
from sweeper.training.results import Ledger, Progress
from sweeper.training.sharded import begin_from, gathered, restore
from sweeper.training.techniques import build_trainer
from sweeper.training.weights import Adapted

Evaluate = Callable[[Adapted], dict[str, float]]
"""Measures the task's own metrics on the validation split, beside the loss."""

PRUNED = "worse than other trials at the same progress"
STOPPED = "stopped by the user"
BY_HAND = "stopped by hand"


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
    run = _Run(spec, base, micro_batch)
    run.ledger.begin()
    reset_peak_memory(base.device)
    try:
        config = peft_config(spec.adapter, spec.hyperparameters, spec.model_folder, spec.technique.head)
        with base.adapted(config, spec.seed) as model:
            decision = run.train(model, report, evaluate)
            return run.finish(model, decision)
    except Exception as error:
        return run.ledger.failed(run.progress, error)


class _Run:
    """The state of one training: what has been seen so far, whatever happens next."""

    def __init__(self, spec: TrialSpec, base: BaseModel, micro_batch: int) -> None:
        self.spec = spec
        self.base = base
        self.ledger = Ledger(spec, base)
        several = base.backend.ranks.size > 1
        self.micro_batch = MicroBatch(min(micro_batch, spec.rows_per_step), fixed=several)
        self.trainer: Any = None
        self.clock = time.monotonic()

    def train(self, model: Adapted, report: Report, evaluate: Evaluate | None) -> Decision:
        callback = ReportingCallback(self._untimed(report), self.ledger.best, self.spec.evaluation.points, evaluate)
        self.trainer = build_trainer(self.spec, self.base, model, self.micro_batch, callback)
        if self.spec.initial_adapter is not None:
            begin_from(model, self.spec.initial_adapter)
        self.trainer.train()
        return callback.decision

    def _untimed(self, report: Report) -> Report:
        """Leave out of the trial's time what its reports take: the study may be paused in one."""

        def timed(step: int, metrics: Mapping[str, float]) -> Decision:
            begun = time.monotonic()
            try:
                return report(step, metrics)
            finally:
                self.clock += time.monotonic() - begun

        return timed

    def finish(self, model: Adapted, decision: Decision) -> TrialResult:
        if decision in (Decision.PRUNE, Decision.PAUSE):  # what is paused cannot be taken up here
            return self.ledger.result(self.progress, Outcome.PRUNED, PRUNED)
        if decision is Decision.END:
            return self.ledger.result(self.progress, Outcome.PRUNED, BY_HAND)
        if decision is Decision.INTERRUPT:
            return self.ledger.result(self.progress, Outcome.INTERRUPTED, STOPPED)
        restore(model, self.ledger.best.weights)
        timed = "latency" in self.spec.evaluation.objectives
        latency = milliseconds_per_token(model, self.base.tokenizer) if timed else None
        with gathered(model):
            return self.ledger.complete(self.progress, model, latency)

    @property
    def progress(self) -> Progress:
        state = getattr(self.trainer, "state", None)
        return Progress(
            steps=state.global_step if state else 0,
            total_steps=max(state.max_steps, 0) if state else 0,
            epochs=float(state.epoch or 0.0) if state else 0.0,
            tokens=self.trainer.tokens_seen if self.trainer is not None else 0,
            seconds=time.monotonic() - self.clock,
            micro_batch=self.micro_batch.rows,
        )
