"""A slot: one packed trial in training."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from datasets import Dataset
from torch.nn.utils import clip_grad_norm_
from transformers import Trainer, get_scheduler

from sweeper.config.parameters import steps
from sweeper.config.trial import TrialSpec
from sweeper.packing.adapter import SlotAdapter
from sweeper.packing.batch import Part, loss_tokens
from sweeper.training.adapters import cast_adapter, peft_config
from sweeper.training.base_model import BaseModel
from sweeper.training.micro_batch import MicroBatch, WholeBatch
from sweeper.training.reporting import evaluation_steps, require_finite
from sweeper.training.techniques.sft import sft_arguments, sft_rows
from sweeper.training.trial_output import TrialOutput, TrialProgress
from sweeper.training.weights import load_weights


class Slot:
    """One trial's adapter, optimizer, schedule, data order, random numbers and progress.

    Nothing in it depends on the other slots, so a trial's result is the same whatever runs beside it. The operations of
    a step and their order follow transformers' ``Trainer`` and TRL's ``SFTTrainer``.

    Args:
        spec: The trial.
        base: The base model.
        adapter: The trial's weights, new or thawed.
        rows: The training and the validation rows in tokens.
        micro_batch: Rows per forward pass at the start.

    Raises:
        Exception: From an optimizer that cannot be made here.
    """

    def __init__(
        self,
        spec: TrialSpec,
        base: BaseModel,
        adapter: SlotAdapter,
        rows: tuple[Dataset, Dataset],
        micro_batch: int,
    ) -> None:
        arguments = sft_arguments(spec, base)
        self.spec = spec
        self.adapter = adapter
        self.output = TrialOutput(spec, base)
        self._rows, self.validation = rows
        self._batch_size = spec.hyperparameters.batch_size
        self._flat = arguments.packing
        self.micro_batch = MicroBatch(min(micro_batch, self._batch_size))
        total = steps(len(self._rows), self._batch_size, spec.hyperparameters.epochs)
        self.progress = TrialProgress(total_steps=total, micro_batch=self.micro_batch.rows)
        self.evaluations = evaluation_steps(total, spec.evaluation.points)
        self.evaluated = 0
        self._max_grad_norm = arguments.max_grad_norm
        kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
        self.optimizer = kind([{"params": adapter.parameters, "weight_decay": arguments.weight_decay}], **options)
        self.scheduler = get_scheduler(
            arguments.lr_scheduler_type,
            self.optimizer,
            num_warmup_steps=arguments.get_warmup_steps(total),
            num_training_steps=total,
            scheduler_specific_kwargs=arguments.lr_scheduler_kwargs,
        )
        self.generator = torch.Generator(base.device).manual_seed(spec.seed)
        self._waiting: list[Part] = []
        self._items, self._tokens, self._loss = 0, 0, 0.0
        self._shuffled: tuple[int, list[int]] = (-1, [])
        self._steps_per_epoch = math.ceil(len(self._rows) / self._batch_size)
        self._before = self.generator.get_state()

    @classmethod
    def new(cls, spec: TrialSpec, base: BaseModel, micro_batch: int) -> Slot:
        """Return a slot with the weights, rows and configuration of the trial when it is trained alone.

        Raises:
            UserError: If the data or the configuration is at fault.
            Exception: From an optimizer that cannot be made here.
        """
        with base.adapted(peft_config(spec.adapter, spec.hyperparameters), spec.seed) as model:
            rows = sft_rows(spec, base, model)
            cast_adapter(base, model)
            if spec.initial_adapter is not None:
                load_weights(model, spec.initial_adapter)
            adapter = SlotAdapter.of(model, spec.hyperparameters.lora_dropout, base.dtype)
        return cls(spec, base, adapter, rows, micro_batch)

    @property
    def number(self) -> int:
        """The trial's number."""
        return self.spec.number

    @property
    def is_due(self) -> bool:
        """Whether the trial is to be evaluated before its next step."""
        return self.progress.steps in self.evaluations and self.evaluated < self.progress.steps

    @property
    def has_ended(self) -> bool:
        """Whether the trial has taken all of its steps."""
        return self.progress.steps >= self.progress.total_steps

    @property
    def random_state(self) -> torch.Tensor:
        """The random numbers' state before the step under way, or after the last where none is."""
        return self._before

    @random_state.setter
    def random_state(self, state: torch.Tensor) -> None:
        self.generator.set_state(state)
        self._before = self.generator.get_state()

    def part(self) -> Part:
        """Return the rows that pass through the model next."""
        if not self._waiting:
            self._begin_step()
        return self._waiting[0]

    @property
    def items(self) -> int:
        """How many tokens of the step's whole batch carry a loss."""
        return self._items

    def take(self, loss: float) -> dict[str, float] | None:
        """Take the loss of the part that passed; where it was the batch's last, step the optimizer.

        Returns:
            What the step is reported with, or None where it is not complete.

        Raises:
            DivergedError: If the loss is no finite number.
        """
        self._loss += loss
        del self._waiting[0]
        return None if self._waiting else self._end_step()

    def restart_step(self) -> None:
        """Undo what was done of the step under way."""
        self.adapter.clear()
        self._waiting.clear()
        self.generator.set_state(self._before)
        self.progress.micro_batch = self.micro_batch.rows

    def offer(self, metrics: Mapping[str, float]) -> None:
        """Take an evaluation; the weights are kept if it is the best.

        The evaluation stays due until ``evaluated`` says that the search has judged it: one that a stop or a fault of
        the database cut short is repeated.

        Raises:
            TrialError: If the deciding metric is missing.
            DivergedError: If a metric is no finite number.
        """
        self.output.best.offer(self.progress.steps, metrics, self.adapter.state())

    def _begin_step(self) -> None:
        self._before = self.generator.get_state()
        epoch, place = divmod(self.progress.steps, self._steps_per_epoch)
        if place == 0 and self.generator.device.type == "cpu":
            torch.empty((), dtype=torch.int64).random_(generator=self.generator)  # a data loader's seed for its workers
        chosen = self._order(epoch)[place * self._batch_size : (place + 1) * self._batch_size]
        whole = WholeBatch([self._rows[index] for index in chosen])
        parts = whole.parts(self.micro_batch.rows)
        self._waiting = [Part(self.adapter, rows, self.generator, self._flat) for rows in parts]
        self._items = max(1, sum(map(loss_tokens, whole.rows)))
        self._tokens = sum(part.tokens for part in self._waiting)
        self._loss = 0.0

    def _order(self, epoch: int) -> list[int]:
        """Return the order of the rows in an epoch, as accelerate's ``SeedableRandomSampler`` draws it."""
        if self._shuffled[0] != epoch:
            seeded = torch.Generator().manual_seed(self.spec.seed + epoch)
            self._shuffled = (epoch, torch.randperm(len(self._rows), generator=seeded).tolist())
        return self._shuffled[1]

    def _end_step(self) -> dict[str, float]:
        norm = clip_grad_norm_(self.adapter.parameters, self._max_grad_norm)
        self.optimizer.step()
        rate = self.scheduler.get_last_lr()[0]
        self.scheduler.step()
        self.adapter.clear()
        self.adapter.refresh()
        self._before = self.generator.get_state()
        self.progress.steps += 1
        self.progress.tokens += self._tokens
        self.progress.epochs = self.progress.steps / self._steps_per_epoch
        require_finite({"loss": self._loss}, self.progress.steps)
        return {"loss": self._loss, "grad_norm": float(norm), "learning_rate": float(rate)}
