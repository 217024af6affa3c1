"""Between the trainer and ``report``: what a trial tells, when it evaluates, and which adapter it keeps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sweeper.config.trial import Decision, Report
from sweeper.errors import DivergedError, TrialError
from sweeper.training.sharded import gathered
from sweeper.training.weights import Adapted, trained_weights

_REPORTED = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "reward": "train_reward",
    "kl": "train_kl",  # TRL's estimate from the sampled tokens; the evaluation's kl is exact
}
"""What is reported of a step: names in TRL's logs, and names here."""


def evaluation_steps(total_steps: int, points: int) -> tuple[int, ...]:
    """Return the optimizer steps after which to evaluate: evenly spread, the last step always among them."""
    return tuple(sorted({math.ceil(total_steps * point / points) for point in range(1, points + 1)}))


class CheckpointWriter(Protocol):
    """Whoever writes a trial to disk."""

    @property
    def is_due(self) -> bool:
        """Whether the last checkpoint is old enough."""


class Best:
    """The adapter of the best evaluation so far, on the host."""

    def __init__(self, metric: str, *, maximize: bool) -> None:
        self.metric = metric
        self.sign = -1.0 if maximize else 1.0
        self.forget()

    def forget(self) -> None:
        """Be as new: the trial begins again."""
        self.value: float | None = None
        self.step: int | None = None
        self.metrics: dict[str, float] = {}
        self.weights: dict[str, torch.Tensor] = {}

    def offer(self, step: int, metrics: Mapping[str, float], weights: Mapping[str, torch.Tensor]) -> None:
        """Keep the adapter's weights, by whichever names the caller will ask for, if this evaluation is the best.

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


class ReportingCallback(TrainerCallback):
    """Reports every step and every evaluation, ends the training when told to, and asks for it to be kept on disk.

    Attributes:
        decision: What the trial was told; the first word that it is not to go on stays.
        at: The optimizer steps after which to evaluate.
        evaluated: The last of them whose evaluation was judged.
    """

    def __init__(
        self,
        report: Report,
        best: Best,
        points: int,
        evaluate: Callable[[Adapted], dict[str, float]] | None,
        keeper: CheckpointWriter | None = None,
    ) -> None:
        """Make a callback of one trial.

        Args:
            report: Told of every step and every evaluation.
            best: Keeps the best evaluation.
            points: How often to evaluate.
            evaluate: Further validation metrics.
            keeper: Knows when the trial is to be written to disk again; None where it is not.
        """
        self.report = report
        self.keeper = keeper
        self.best = best
        self.points = points
        self.evaluate = evaluate
        self.decision = Decision.CONTINUE
        self.at: tuple[int, ...] = ()
        self.evaluated = 0

    def owes(self, step: int) -> bool:
        """Tell whether there is an evaluation after a step that was not judged yet."""
        return step in self.at and self.evaluated < step

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Plan the evaluations once the number of steps is known."""
        self.at = evaluation_steps(state.max_steps, self.points)
        return control

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Ask for an evaluation where one is due, and for a checkpoint; at its end a trial needs none."""
        control.should_evaluate = state.global_step in self.at
        control.should_save = self.keeper is not None and self.keeper.is_due and state.global_step < state.max_steps
        return control

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> TrainerControl:
        """Report the loss of a step; evaluations are reported by ``on_evaluate``."""
        if logs is None or "loss" not in logs:
            return control
        metrics = {name: float(logs[key]) for key, name in _REPORTED.items() if logs.get(key) is not None}
        require_finite({"loss": metrics["loss"]}, state.global_step)
        self._tell(state, control, metrics)
        if self.keeper is not None and self.decision is Decision.INTERRUPT:
            control.should_evaluate = False  # it is evaluated when it goes on
        return control

    def on_evaluate(
        self,
        args: TrainingArguments,
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
            return control  # the trial was told at this very step to end: what it takes time to measure is not missed
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
            if self.keeper is not None:
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
