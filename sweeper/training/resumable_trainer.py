"""Base of every technique's trainer: saves checkpoints between two steps and resumes from one bit for bit.

transformers' ``Trainer`` decides when to save, which batches of an epoch to skip, and when to restore the random
numbers so that skipping draws none. Its own files are pickles, so ``training/checkpoint.py`` replaces whatever reads or
writes one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from sweeper.training.checkpoint import Checkpoint, RandomNumbers, digest, write
from sweeper.training.trial_output import TrialOutput, TrialProgress
from sweeper.training.weights import trained_weights

if TYPE_CHECKING:
    import torch
    from transformers import Trainer

    from sweeper.training.reporting import ReportingCallback
else:
    Trainer = object  # the mixin stands before a TRL trainer, which brings the real one

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckpointPolicy:
    """When a trial is checkpointed.

    Attributes:
        every_s: Seconds of training between two checkpoints; 0 is one after every step.
        before: Called before anything of the trial is written: records what was reported, and raises if the trial was
            reassigned to another worker.
    """

    every_s: float
    before: Callable[[], None]


class Checkpointer:
    """Writes checkpoints of a trial at intervals, and when it is stopped."""

    def __init__(
        self, checkpoints: CheckpointPolicy, output: TrialOutput, progress: Callable[[], TrialProgress]
    ) -> None:
        self._checkpoints = checkpoints
        self._output = output
        self._progress = progress
        self._kept = time.monotonic()

    def is_due(self) -> bool:
        """Whether the last checkpoint is old enough."""
        return time.monotonic() - self._kept >= self._checkpoints.every_s

    def keep(self, trainer: ResumableTrainer, evaluated: int) -> None:
        """Write a checkpoint; if that fails, the previous one stays, and the trial continues."""
        self._checkpoints.before()
        try:
            write(trainer, self._output, self._progress(), evaluated)
        except (OSError, TypeError, SafetensorError) as error:  # an optimizer may keep more than tensors and numbers
            log.warning("trial %s continues without a new checkpoint: %s", self._output.spec.number, error)
        self._kept = time.monotonic()


class ResumableTrainer(Trainer):
    """Mixin before a TRL trainer.

    Attributes:
        keeper: Writes the checkpoints; None for no checkpoints.
        checkpoint: What it resumes from; None at the beginning.
        own_names: Attributes that training changes, beside weights, optimizer and schedule; their values are JSON.
        initial_digest: A digest of the initial adapter, if that was taken out of the base's weights.
    """

    keeper: Checkpointer | None = None
    checkpoint: Checkpoint | None = None
    initial_digest: str | None = None
    own_names: tuple[str, ...] = ()
    reporting: ReportingCallback
    _random: RandomNumbers | None = None
    _before_evaluation: RandomNumbers | None = None
    _has_caught_up = False

    def own_state(self) -> dict[str, Any]:
        """Return the technique's own state, as JSON."""
        return {name: getattr(self, name) for name in self.own_names if hasattr(self, name)}

    def restore_own_state(self, state: dict[str, Any]) -> None:
        """Take back what ``own_state`` returned."""
        for name in self.own_names:
            if name in state:
                setattr(self, name, state[name])

    def checkpoint_with(self, reporting: ReportingCallback, keeper: Checkpointer | None, changes_base: bool) -> None:
        """Set what writes the checkpoints; call it before training, once the adapter has its first weights.

        ``changes_base`` says whether the initial adapter was taken out of the base's weights.
        """
        self.reporting, self.keeper = reporting, keeper
        if changes_base:
            self.initial_digest = digest(trained_weights(self.model))

    def resume_from(self, checkpoint: Checkpoint) -> bool:
        """Resume from a checkpoint; return whether that is possible.

        It is not if the initial adapter was taken out of the base's weights and now differs: it is a decomposition,
        which another machine may round differently.
        """
        if checkpoint.rest.get("begun_with") != self.initial_digest:
            return False
        self.checkpoint = checkpoint
        self.reporting.evaluated = checkpoint.evaluated
        return True

    def run(self) -> None:
        """Train from the checkpoint, if there is one, or from the beginning."""
        self.train(None if self.checkpoint is None else str(self.checkpoint.folder))

    @property
    def plain_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer without accelerate's wrapper."""
        wrapped: Any = self.optimizer
        found: torch.optim.Optimizer = getattr(wrapped, "optimizer", wrapped)
        return found

    @property
    def random_numbers(self) -> RandomNumbers:
        """The random numbers to resume with: if an evaluation is to be repeated, those from before it."""
        if self._before_evaluation is not None and self.reporting.owes(self.state.global_step):
            return self._before_evaluation
        return RandomNumbers.now(self.args.device)

    def _evaluate(self, *arguments: Any, **named: Any) -> dict[str, float]:
        self._before_evaluation = RandomNumbers.now(self.args.device)
        measured: dict[str, float] = super()._evaluate(*arguments, **named)
        if not self.reporting.owes(self.state.global_step):
            self._before_evaluation = None
        return measured

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        if self.keeper is not None:
            self.keeper.keep(self, self.reporting.evaluated)

    def _load_from_checkpoint(self, checkpoint: str, model: torch.nn.Module | None = None) -> None:
        assert self.checkpoint is not None
        self.checkpoint.put_weights_into(self.model)
        self._random = self.checkpoint.random_numbers()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self.checkpoint is not None:
            self.checkpoint.put_optimizer_into(self)

    def _load_scaler(self, checkpoint: str | None) -> None:
        if self.checkpoint is not None:
            self.checkpoint.put_scaler_into(self)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if self._random is not None:
            self._random.put_back(self.args.device)

    def _run_epoch(self, *arguments: Any, **named: Any) -> None:
        """Train an epoch, unless the evaluation that a stop interrupted ends the trial."""
        if self.checkpoint is not None and not self._has_caught_up:
            self._has_caught_up = True
            self._evaluate_what_is_owed()
        if not self.control.should_training_stop:
            super()._run_epoch(*arguments, **named)

    def _evaluate_what_is_owed(self) -> None:
        """Evaluate the last step, if the checkpoint was written before its evaluation was reported."""
        if self.reporting.owes(self.state.global_step):
            self._load_rng_state(None)
            self._evaluate(None, None)
            self._random = RandomNumbers.now(self.args.device)
