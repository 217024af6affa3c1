"""Policies that learn from the rewards of their own answers, with TRL's trainers for GRPO, RLOO and GMPO."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import torch
from datasets import Dataset

from sweeper.config.technique import Policy
from sweeper.config.trial import TrialSpec
from sweeper.data.splits import read_prepared
from sweeper.errors import DataError
from sweeper.training.arguments import one_device, training_arguments
from sweeper.training.base_model import BaseModel
from sweeper.training.micro_batch import MicroBatch, answers_at_once, until_it_fits
from sweeper.training.reporting import ReportingCallback
from sweeper.training.resumable_trainer import ResumableTrainer
from sweeper.training.rewards import build_rewards
from sweeper.training.weights import Adapted

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # TRL warns of its experimental folder, where GMPO lives

from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from trl.experimental.gmpo import GMPOConfig, GMPOTrainer
from trl.trainer.utils import RepeatSampler


class MicroBatchedPolicy(ResumableTrainer):
    """Stands before a TRL trainer among a class's bases.

    An optimizer step is one round: every prompt of the batch is answered, then the answers are learned from in as many
    parts as memory asks for. TRL itself would halve nothing, and leave out the prompts that fill no whole batch.
    """

    control: Any
    num_generations: int
    own_names = ("_step", "entropy_coef", "_last_world_entropy")  # the last two of GRPO's only

    def __init__(self, micro_batch: MicroBatch, **arguments: Any) -> None:
        self.micro_batch = micro_batch
        super().__init__(**arguments)
        # How many are answered at once depends on the kind of device only: other batches would draw other answers.
        self._answering = MicroBatch(answers_at_once(self.args.device.type))

    def training_step(self, model: torch.nn.Module, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Answer the prompts, then sum the gradients of all parts of the answers; return the loss."""
        model.train()
        answers = until_it_fits(self.micro_batch, lambda: self._prepare_inputs(inputs), undo=lambda: None)
        loss: torch.Tensor = until_it_fits(
            self.micro_batch, lambda: self._train_on(model, answers), undo=model.zero_grad
        )
        self._step: int = self._step + 1  # TRL answers anew at every step that divides evenly, here at all
        return loss

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Leave everything to the callback: a policy is measured by its answers, its loss says nothing."""
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, {})
        return {}

    @property
    def tokens_seen(self) -> int:
        """Tokens of prompts and answers so far, padding left out."""
        return int(self.state.num_input_tokens_seen)

    def own_state(self) -> dict[str, Any]:
        """Return TRL's own attributes, and how many prompts are answered at once."""
        return {"answering": self._answering.rows, **super().own_state()}

    def restore_own_state(self, state: dict[str, Any]) -> None:
        """Take back what ``own_state`` returned."""
        self._answering.rows = state["answering"]
        super().restore_own_state(state)

    def _train_on(self, model: torch.nn.Module, answers: Mapping[str, Any]) -> torch.Tensor:
        rows = len(answers["completion_ids"])
        losses = []
        for start in range(0, rows, self.micro_batch.rows):
            part = _rows(answers, start, min(start + self.micro_batch.rows, rows))
            with self.compute_loss_context_manager():
                loss = self.compute_loss(model, part) * (len(part["completion_ids"]) / rows)
            self.accelerator.backward(loss)
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def _get_train_sampler(self, dataset: Any = None) -> RepeatSampler:
        """Return TRL's sampler over single prompts, which leaves none out at the end of an epoch.

        Its order of an epoch follows from those before, so that of a trial which goes on has to draw them again.
        """
        rows = dataset if dataset is not None else self.train_dataset
        sampler = RepeatSampler(rows, self.num_generations, seed=self.args.seed)
        for _ in range(self._epochs_done(len(rows))):
            torch.randperm(len(rows), generator=sampler.generator)
        return sampler

    def _epochs_done(self, prompts: int) -> int:
        if self.checkpoint is None:
            return 0
        steps_per_epoch: int = math.ceil(prompts * self.num_generations / self.args.per_device_train_batch_size)
        return self.checkpoint.progress.steps // steps_per_epoch

    def _generate_single_turn(self, prompt_ids: list[Any], images: Any, fields: dict[str, Any], *others: Any) -> Any:
        """Answer the prompts in as many parts as memory asks for."""
        ask = super()._generate_single_turn

        def attempt() -> list[Any]:
            size = self._answering.rows
            parts = [slice(start, start + size) for start in range(0, len(prompt_ids), size)]
            own = [{name: values[part] for name, values in fields.items()} for part in parts]
            return [ask(prompt_ids[part], images, of, *others) for part, of in zip(parts, own, strict=True)]

        return _joined(until_it_fits(self._answering, attempt, undo=lambda: None))

    def _get_per_token_logps_and_entropies(
        self, model: Any, ids: Any, mask: Any, kept: Any, batch_size: int | None = None, *others: Any, **named: Any
    ) -> Any:
        """Look at answers in parts as small as those that are learned from."""
        most = self.micro_batch.rows
        size = min(batch_size or most, most)
        return super()._get_per_token_logps_and_entropies(model, ids, mask, kept, size, *others, **named)


TRAINERS: dict[str, tuple[type, type]] = {
    "grpo": (GRPOConfig, type("MicroBatchedGRPOTrainer", (MicroBatchedPolicy, GRPOTrainer), {})),
    "rloo": (RLOOConfig, type("MicroBatchedRLOOTrainer", (MicroBatchedPolicy, RLOOTrainer), {})),
    "gmpo": (GMPOConfig, type("MicroBatchedGMPOTrainer", (MicroBatchedPolicy, GMPOTrainer), {})),
}
"""TRL's configuration and trainer of each technique."""


def build_policy(
    spec: TrialSpec, base: BaseModel, model: Adapted, micro_batch: MicroBatch, callback: ReportingCallback
) -> Any:
    """Return a trainer ready to train; prompts longer than ``max_length`` are dropped.

    Raises:
        DataError: If no prompt is left.
        RewardError: If a reward cannot be used.
    """
    config, trainer = TRAINERS[spec.technique.kind]
    assert isinstance(spec.technique, Policy)
    rewards = build_rewards(spec.technique.rewards, spec.reward_sources, base.device)
    arguments = config(
        max_completion_length=spec.technique.max_completion_length,
        reward_weights=[reward.weight for reward in rewards],
        disable_dropout=spec.hyperparameters.lora_dropout == 0,
        # The whole round at once, answers counted; see the class above.
        **{**training_arguments(spec, base), "per_device_train_batch_size": spec.rows_per_step},
    )
    return trainer(
        micro_batch,
        model=model,
        reward_funcs=rewards,
        args=one_device(arguments),
        train_dataset=Dataset.from_list(_short_enough(spec, base)),
        processing_class=base.tokenizer,
        callbacks=[callback],
    )


def _short_enough(spec: TrialSpec, base: BaseModel) -> list[dict[str, Any]]:
    most = spec.technique.max_length
    rows = [row for row in read_prepared(spec.train) if _length(base.tokenizer, row["prompt"]) <= most]
    if not rows:
        raise DataError(
            f"no prompt is left: every one is longer than technique.max_length ({most} tokens); raise it, or shorten "
            "the prompts"
        )
    return rows


def _length(tokenizer: Any, prompt: Any) -> int:
    if isinstance(prompt, str):
        return len(tokenizer(prompt)["input_ids"])
    encoded = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=True)
    return len(encoded["input_ids"])


def _rows(answers: Mapping[str, Any], start: int, end: int) -> dict[str, Any]:
    """Return some of the rows, and of what counts all tokens their share: TRL divides by it."""
    whole = len(answers["completion_ids"])
    by_row = {n for n, v in answers.items() if isinstance(v, torch.Tensor) and v.dim() > 0 and len(v) == whole}
    part = {name: value[start:end] if name in by_row else value for name, value in answers.items()}
    if "num_items_in_batch" in part:
        part["num_items_in_batch"] = part["num_items_in_batch"] * (end - start) / whole
    return part


def _joined(parts: list[Any]) -> Any:
    """Join what answering gave part by part: lists of answers, alone or several beside each other."""
    if not isinstance(parts[0], tuple):
        return [answer for part in parts for answer in part]
    columns = zip(*parts, strict=True)
    return tuple(None if column[0] is None else _joined(list(column)) for column in columns)
