"""Reports of a trial in training, its evaluations, and the best adapter so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState

from sweeper.config.trial import Decision, Report
from sweeper.errors import DivergedError, TrialError
from sweeper.training.weights import Adapted, gathered, trained_weights

_REPORTED = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "reward": "train_reward",
    "kl": "train_kl",  # TRL's estimate from the sampled tokens; the evaluation's kl is exact
}
"""Reported metrics of a step: from their names in TRL's logs to sweeper's."""


def evaluation_steps(total_steps: int, points: int) -> tuple[int, ...]:
    """Return the optimizer steps after which to evaluate: evenly spread, the last step always among them."""
    return tuple(sorted({math.ceil(total_steps * point / points) for point in range(1, points + 1)}))


class BestEvaluation:
    """The best evaluation so far, with its adapter's weights on the host."""

    def __init__(self, metric: str, *, maximize: bool) -> None:
        self.metric = metric
        self.sign = -1.0 if maximize else 1.0
        self.reset()

    def reset(self) -> None:
        """Forget every evaluation: the trial starts over."""
        self.value: float | None = None
        self.step: int | None = None
        self.metrics: dict[str, float] = {}
        self.weights: dict[str, torch.Tensor] = {}

    def offer(self, step: int, metrics: Mapping[str, float], weights: Mapping[str, torch.Tensor]) -> None:
        """Keep an evaluation and the adapter's weights if it is the best so far.

        Raises:
            TrialError: If the deciding metric is not among the metrics.
            DivergedError: If any of them is not a finite number.
        """
        if self.metric not in metrics:
            raise TrialError(f"the evaluation gave no {self.metric}; it gave {', '.join(sorted(metrics)) or 'nothing'}")
        require_finite(metrics, step)
        value = metrics[self.metric]
        if self.value is None or self.sign * value < self.sign * self.value:
            self.value, self.step, self.metrics = value, step, dict(metrics)
            self.weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in weights.items()}

    def record(self) -> dict[str, Any]:
        """Return all but the weights, as JSON."""
        return {"value": self.value, "step": self.step, "metrics": self.metrics}

    def restore(self, record: Mapping[str, Any], weights: dict[str, torch.Tensor]) -> None:
        """Take back what ``record`` returned, and the weights."""
        self.value, self.step, self.metrics = (record[name] for name in ("value", "step", "metrics"))
        self.weights = weights


class ReportingCallback(TrainerCallback):
    """Reports every step and evaluation, stops the training when told to, and requests checkpoints.

    Attributes:
        decision: The first decision other than to continue.
        at: The optimizer steps after which to evaluate.
        evaluated: The last of them whose evaluation was reported.
    """

    def __init__(
        self,
        report: Report,
        best: BestEvaluation,
        points: int,
        evaluate: Callable[[Adapted], dict[str, float]] | None,
        checkpoint_due: Callable[[], bool] | None = None,
    ) -> None:
        """Make the callback of one trial, which evaluates at ``points`` steps and saves when ``checkpoint_due``."""
        self.report = report
        self.checkpoint_due = checkpoint_due
        self.best = best
        self.points = points
        self.evaluate = evaluate
        self.decision = Decision.CONTINUE
        self.at: tuple[int, ...] = ()
        self.evaluated = 0

    def owes(self, step: int) -> bool:
        """Return whether the evaluation after a step is still to be reported."""
        return step in self.at and self.evaluated < step

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> TrainerControl:
        """Plan the evaluations once the number of steps is known."""
        self.at = evaluation_steps(state.max_steps, self.points)
        return control

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> TrainerControl:
        """Request an evaluation or a checkpoint when one is due; a trial at its end needs no checkpoint."""
        control.should_evaluate = state.global_step in self.at
        due = self.checkpoint_due is not None and self.checkpoint_due()
        control.should_save = due and state.global_step < state.max_steps
        return control

    def on_log(
        self, args: Any, state: TrainerState, control: TrainerControl, logs: dict[str, Any] | None = None, **_: Any
    ) -> TrainerControl:
        """Report the loss of a step; evaluations are reported by ``on_evaluate``."""
        if logs is None or "loss" not in logs:
            return control
        metrics = {name: float(logs[key]) for key, name in _REPORTED.items() if logs.get(key) is not None}
        require_finite({"loss": metrics["loss"]}, state.global_step)
        self._tell(state, control, metrics)
        if self.checkpoint_due is not None and self.decision is Decision.INTERRUPT:
            control.should_evaluate = False  # it is evaluated when it resumes
        return control

    def on_evaluate(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        model: Adapted | None = None,
        **_: Any,
    ) -> TrainerControl:
        """Add the task's own metrics, keep the adapter if it is the best, and report."""
        assert model is not None
        measured = dict(metrics or {})
        require_finite(measured, state.global_step)  # no text is generated with weights that are no numbers
        if self.evaluate is not None and self.decision is Decision.CONTINUE:
            measured |= self.evaluate(model)
        if self.decision is not Decision.CONTINUE and self.best.metric not in measured:
            return control  # stopped at this very step: metrics that take time are not measured
        with gathered(model):
            self.best.offer(state.global_step, measured, trained_weights(model))
        self._tell(state, control, measured)
        if self.decision is not Decision.INTERRUPT:
            self.evaluated = state.global_step
        return control

    def _tell(self, state: TrainerState, control: TrainerControl, metrics: dict[str, float]) -> None:
        decision = self.report(state.global_step, {**metrics, "progress": state.global_step / state.max_steps})
        if decision is not Decision.CONTINUE and self.decision is Decision.CONTINUE:
            self.decision = decision
            control.should_training_stop = True
            if self.checkpoint_due is not None:
                control.should_save = decision is Decision.INTERRUPT


def perplexity(loss: float) -> float:
    """Return the perplexity of a mean loss per token."""
    return math.exp(min(loss, 700.0))  # beyond that a float has no room


def require_finite(metrics: Mapping[str, float], step: int) -> None:
    """Refuse a metric that is no finite number.

    Raises:
        DivergedError: If there is one.
    """
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise DivergedError(f"the {name} is {value} at step {step}")
