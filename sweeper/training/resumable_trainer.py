"""What every technique's trainer shares: it is kept on disk between two steps, and goes on from there bit for bit.

transformers' ``Trainer`` brings the frame: when to save, which batches of an epoch to skip, and when to put the random
numbers back so that skipping draws none of them. Its files are pickles, so everything that reads or writes one is
replaced here by ``training/checkpoint.py``.
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
    """How a trial is to be kept on disk.

    Attributes:
        every_s: Seconds of training between two checkpoints; 0 is one after every step.
        before: Called before anything of the trial is written: to record what was reported, and to raise where the
            trial is another's by now.
    """

    every_s: float
    before: Callable[[], None]


class Checkpointer:
    """Writes a trial to disk every so often, and when it is stopped.

    Args:
        keeping: How often.
        ledger: The trial's folder and best evaluation.
        progress: Tells how far it has come.
    """

    def __init__(self, keeping: CheckpointPolicy, ledger: TrialOutput, progress: Callable[[], TrialProgress]) -> None:
        self._keeping = keeping
        self._ledger = ledger
        self._progress = progress
        self._kept = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether the last checkpoint is old enough."""
        return time.monotonic() - self._kept >= self._keeping.every_s

    def keep(self, trainer: ResumableTrainer, evaluated: int) -> None:
        """Write a checkpoint; where that fails, the one before stays, and the trial goes on without."""
        self._keeping.before()
        try:
            write(trainer, self._ledger, self._progress(), evaluated)
        except (OSError, TypeError, SafetensorError) as error:  # an optimizer may keep more than tensors and numbers
            log.warning("trial %s goes on without a checkpoint: %s", self._ledger.spec.number, error)
        self._kept = time.monotonic()


class ResumableTrainer(Trainer):
    """Stands before a TRL trainer among a class's bases.

    Attributes:
        keeper: Writes it to disk; None where nothing is kept.
        checkpoint: What it goes on from; None where it begins.
        begun_with: A digest of the weights it began with, where the base's own were changed by them.
    """

    keeper: Checkpointer | None = None
    checkpoint: Checkpoint | None = None
    begun_with: str | None = None
    reporting: ReportingCallback
    _random: RandomNumbers | None = None
    _before_evaluation: RandomNumbers | None = None
    _has_caught_up = False

    def own_state(self) -> dict[str, Any]:
        """Return what the technique keeps beside weights, optimizer and schedule, as JSON."""
        return {}

    def restore_own_state(self, state: dict[str, Any]) -> None:
        """Take back what ``own_state`` returned."""

    def be_kept(self, reporting: ReportingCallback, keeper: Checkpointer | None, changes_base: bool) -> None:
        """Say who writes the trainer to disk; to be called before training, once the adapter has its first weights.

        Args:
            reporting: Knows which evaluations were judged.
            keeper: Writes it; None where nothing is kept.
            changes_base: Whether the adapter's beginning was taken out of the base's weights.
        """
        self.reporting, self.keeper = reporting, keeper
        if changes_base:
            self.begun_with = digest(trained_weights(self.model))

    def go_on_from(self, checkpoint: Checkpoint) -> bool:
        """Take a checkpoint to go on from; return whether it can be done.

        It cannot where the adapter's beginning was taken out of the base's weights and was not found to be the same
        again: such a beginning is a decomposition, which another machine may round otherwise.
        """
        if checkpoint.rest.get("begun_with") != self.begun_with:
            return False
        self.checkpoint = checkpoint
        self.reporting.evaluated = checkpoint.evaluated
        return True

    def train_on(self) -> None:
        """Train from the checkpoint where there is one, else from the beginning."""
        self.train(None if self.checkpoint is None else str(self.checkpoint.folder))

    @property
    def plain_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer itself, without what accelerate wraps it in."""
        wrapped: Any = self.optimizer
        found: torch.optim.Optimizer = getattr(wrapped, "optimizer", wrapped)
        return found

    @property
    def random_numbers(self) -> RandomNumbers:
        """The random numbers to go on with: where an evaluation is to be repeated, those from before it."""
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
        """Train an epoch, unless the evaluation that a stop cut short says to end."""
        if self.checkpoint is not None and not self._has_caught_up:
            self._has_caught_up = True
            self._evaluate_what_is_owed()
        if not self.control.should_training_stop:
            super()._run_epoch(*arguments, **named)

    def _evaluate_what_is_owed(self) -> None:
        """Take the evaluation of the last step, if it was not judged before the trial was written to disk."""
        if self.reporting.owes(self.state.global_step):
            self._load_rng_state(None)
            self._evaluate(None, None)
            self._random = RandomNumbers.now(self.args.device)
