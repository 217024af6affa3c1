"""Supervised fine-tuning with TRL's ``SFTTrainer``."""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from sweeper.config.technique import SFT
from sweeper.config.trial import TrialSpec
from sweeper.training.arguments import one_device, training_arguments
from sweeper.training.base_model import BaseModel
from sweeper.training.micro_batch import MicroBatch, WholeBatch, loss_tokens
from sweeper.training.micro_batched_trainer import MicroBatchedTrainer
from sweeper.training.ranks import Ranks
from sweeper.training.reporting import ReportingCallback, perplexity
from sweeper.training.tokenised import tokenised
from sweeper.training.weights import Adapted


class MicroBatchedSFTTrainer(MicroBatchedTrainer, SFTTrainer):
    """TRL's trainer; the loss of a batch is the mean over its tokens, in however many parts it is taken."""

    def __init__(self, micro_batch: MicroBatch, ranks: Ranks, **arguments: Any) -> None:
        self.ranks = ranks
        super().__init__(micro_batch, **arguments)

    def _train_on(self, model: torch.nn.Module, whole: WholeBatch) -> torch.Tensor:
        parts = self.ranks.parts(whole, self.micro_batch.rows, self.collate)
        # Gradients are averaged over the ranks: each divides by its part of all tokens.
        tokens = self.ranks.total(sum(map(loss_tokens, parts))) / self.ranks.size
        losses = [self._part_step(model, part, tokens, last=part is parts[-1]) for part in parts]
        self.tokens_seen += whole.tokens
        return self.ranks.mean(torch.stack(losses).sum())

    def _part_step(self, model: torch.nn.Module, part: dict[str, Any], tokens: float, *, last: bool) -> torch.Tensor:
        self.accelerator.gradient_state._set_sync_gradients(last)  # DeepSpeed steps in the backward pass of the last
        count = torch.tensor(tokens, device=self.args.device)
        loss: torch.Tensor = SFTTrainer.training_step(self, model, part, count)
        return loss

    def _mean_loss(self, whole: WholeBatch) -> float:
        total, tokens = 0.0, 0
        for part in self.ranks.parts(whole, self.micro_batch.rows, self.collate):
            inputs = self._prepare_inputs(part)
            tokens += loss_tokens(inputs)
            total += float(self.compute_loss(self.model, inputs, num_items_in_batch=torch.tensor(1)))
        return self.ranks.total(total) / max(1, self.ranks.total(tokens))

    def _measures(self, loss: float) -> dict[str, float]:
        return {"eval_loss": loss, "perplexity": perplexity(loss)}


def build_sft(
    spec: TrialSpec, base: BaseModel, model: Adapted, micro_batch: MicroBatch, callback: ReportingCallback
) -> MicroBatchedSFTTrainer:
    """Return a trainer ready to train.

    Raises:
        DataError: If nothing with a loss is left after truncation.
    """
    train, validation = sft_rows(spec, base, model)
    return MicroBatchedSFTTrainer(
        micro_batch,
        base.backend.ranks,
        model=model,
        args=sft_arguments(spec, base),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=base.tokenizer,
        callbacks=[callback],
    )


def sft_rows(spec: TrialSpec, base: BaseModel, model: torch.nn.Module) -> tuple[Dataset, Dataset]:
    """Return a trial's training and validation rows in tokens; see ``tokenised``.

    Raises:
        DataError: If nothing with a loss is left after truncation.
    """
    return tokenised(spec, base, model, sft_arguments(spec, base, skip_prepare=False))


def sft_arguments(spec: TrialSpec, base: BaseModel, *, skip_prepare: bool = True) -> SFTConfig:
    """Translate a trial's configuration into TRL's words."""
    technique = spec.technique
    assert isinstance(technique, SFT)
    arguments = SFTConfig(
        max_length=technique.max_length,
        packing=technique.packing,
        eval_packing=False,
        dataset_kwargs={"skip_prepare_dataset": True} if skip_prepare else None,
        **training_arguments(spec, base),
    )
    return one_device(arguments)
