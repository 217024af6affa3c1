"""Supervised fine-tuning with TRL's ``SFTTrainer``."""

from __future__ import annotations

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from sweeper.config.technique import SFT
from sweeper.config.trial import TrialSpec
from sweeper.training.arguments import one_device, training_arguments
from sweeper.training.base_model import BaseModel
from sweeper.training.fitting import Fitting
from sweeper.training.micro_batch import MicroBatch, WholeBatch, loss_tokens
from sweeper.training.reporting import ReportingCallback, perplexity
from sweeper.training.tokenised import has_completions, tokenised
from sweeper.training.weights import Adapted


class FittingSFTTrainer(Fitting, SFTTrainer):
    """TRL's trainer; the loss of a batch is the mean over its tokens, in however many parts it is taken."""

    _total_train_tokens: int

    def _train_on(self, model: torch.nn.Module, whole: WholeBatch) -> torch.Tensor:
        self._total_train_tokens = self._tokens_seen
        parts = [self.collate(part) for part in whole.parts(self.micro_batch.rows)]
        tokens = torch.tensor(sum(map(loss_tokens, parts)), device=self.args.device)
        losses = [SFTTrainer.training_step(self, model, part, tokens) for part in parts]
        self._tokens_seen = int(self._total_train_tokens)
        return torch.stack(losses).sum()

    def _mean_loss(self, whole: WholeBatch) -> float:
        total, tokens = 0.0, 0
        for part in whole.parts(self.micro_batch.rows):
            inputs = self._prepare_inputs(self.collate(part))
            tokens += loss_tokens(inputs)
            total += float(self.compute_loss(self.model, inputs, num_items_in_batch=torch.tensor(1)))
        return total / max(1, tokens)

    def _measures(self, loss: float) -> dict[str, float]:
        return {"eval_loss": loss, "perplexity": perplexity(loss)}


def build_sft(
    spec: TrialSpec, base: BaseModel, model: Adapted, micro_batch: MicroBatch, callback: ReportingCallback
) -> FittingSFTTrainer:
    """Return a trainer ready to train.

    Raises:
        DataError: If nothing with a loss is left after truncation.
    """
    train, validation = sft_rows(spec, base, model)
    return FittingSFTTrainer(
        micro_batch,
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
    completions = technique.completion_only and not technique.assistant_only
    arguments = SFTConfig(
        max_length=technique.max_length,
        packing=technique.packing,
        eval_packing=False,
        completion_only_loss=completions if has_completions(spec.train) else None,
        assistant_only_loss=technique.assistant_only,
        dataset_kwargs={"skip_prepare_dataset": True} if skip_prepare else None,
        **training_arguments(spec, base),
    )
    return one_device(arguments)
