"""Supervised fine-tuning with TRL's ``SFTTrainer``."""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import PrinterCallback, ProgressCallback
from trl import SFTConfig, SFTTrainer

from sweeper.config.technique import SFT
from sweeper.config.trial import Hyperparameters, TrialSpec
from sweeper.training.base_model import BaseModel
from sweeper.training.micro_batch import MicroBatch, WholeBatch, loss_tokens, until_it_fits
from sweeper.training.ranks import Ranks
from sweeper.training.reporting import ReportingCallback, perplexity
from sweeper.training.tokenised import has_completions, tokenised


class FittingSFTTrainer(SFTTrainer):
    """TRL's trainer, taking a step in as many parts as memory asks for."""

    control: Any
    data_collator: Any
    _total_train_tokens: int

    def __init__(self, micro_batch: MicroBatch, ranks: Ranks, **arguments: Any) -> None:
        self.micro_batch = micro_batch
        self.ranks = ranks
        super().__init__(**arguments)
        self._collate = self.data_collator
        self.data_collator = lambda rows: {"whole": WholeBatch(rows)}
        # The collator needs every column of the tokenised rows; the model sees only what it returns.
        self.args.remove_unused_columns = False

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        """Sum the gradients of all micro-batches; the loss is the mean over all tokens of the effective batch."""
        whole: WholeBatch = inputs["whole"]
        seen_before = self._total_train_tokens

        def attempt() -> torch.Tensor:
            parts = self.ranks.parts(whole, self.micro_batch.rows, self._collate)
            # Gradients are averaged over the ranks: each divides by its part of all tokens.
            tokens = self.ranks.total(sum(map(loss_tokens, parts))) / self.ranks.size
            losses = [self._part_step(model, part, tokens, last=part is parts[-1]) for part in parts]
            return self.ranks.mean(torch.stack(losses).sum())

        loss = until_it_fits(self.micro_batch, attempt, undo=model.zero_grad)
        self._total_train_tokens = seen_before + whole.tokens
        return loss

    def _part_step(self, model: torch.nn.Module, part: dict[str, Any], tokens: float, *, last: bool) -> torch.Tensor:
        self.accelerator.gradient_state._set_sync_gradients(last)  # DeepSpeed steps in the backward pass of the last
        loss: torch.Tensor = super().training_step(model, part, torch.tensor(tokens, device=self.args.device))
        return loss

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Return the mean loss per token over the validation split: the same whatever the size of the parts."""
        self.model.eval()
        whole = WholeBatch(list(self.eval_dataset))
        loss = until_it_fits(self.micro_batch, lambda: self._mean_loss(whole), undo=lambda: None)
        self._metrics["eval"].clear()
        metrics = {f"{metric_key_prefix}_loss": loss, "perplexity": perplexity(loss)}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _mean_loss(self, whole: WholeBatch) -> float:
        total, tokens = 0.0, 0
        with torch.no_grad(), self.compute_loss_context_manager():
            for part in self.ranks.parts(whole, self.micro_batch.rows, self._collate):
                inputs = self._prepare_inputs(part)
                tokens += loss_tokens(inputs)
                total += float(self.compute_loss(self.model, inputs, num_items_in_batch=torch.tensor(1)))
        return self.ranks.total(total) / max(1, self.ranks.total(tokens))

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: the batch is not collated yet, and nothing reads the count."""
        return 0

    @property
    def tokens_seen(self) -> int:
        """Training tokens so far, padding left out."""
        return int(self._total_train_tokens)


def build_sft(
    spec: TrialSpec, base: BaseModel, model: PeftModel, micro_batch: MicroBatch, callback: ReportingCallback
) -> FittingSFTTrainer:
    """Return a trainer ready to train.

    Raises:
        DataError: If nothing with a loss is left after truncation.
    """
    train, validation = sft_rows(spec, base, model)
    trainer = FittingSFTTrainer(
        micro_batch,
        base.backend.ranks,
        model=model,
        args=sft_arguments(spec, base),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=base.tokenizer,
        callbacks=[callback],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    cast_adapter(base, model)
    base.backend.prepare(trainer)
    return trainer


def sft_rows(spec: TrialSpec, base: BaseModel, model: torch.nn.Module) -> tuple[Dataset, Dataset]:
    """Return a trial's training and validation rows in tokens; see ``tokenised``.

    Raises:
        DataError: If nothing with a loss is left after truncation.
    """
    return tokenised(spec, base, model, sft_arguments(spec, base, skip_prepare=False))


def cast_adapter(base: BaseModel, model: PeftModel) -> None:
    """Give an adapter's weights the type that they train in.

    PEFT makes adapters float32, and TRL rounds those of a quantised base to bfloat16. Beside float32 compute bfloat16
    only loses small updates, so there they become float32 again.
    """
    quantised = getattr(base.model, "is_loaded_in_4bit", False) or getattr(base.model, "is_loaded_in_8bit", False)
    for parameter in model.parameters():
        if parameter.requires_grad:
            rounded = parameter.data.to(torch.bfloat16) if quantised else parameter.data.float()
            parameter.data = rounded.float() if base.dtype is torch.float32 else rounded


def sft_arguments(spec: TrialSpec, base: BaseModel, *, skip_prepare: bool = True) -> SFTConfig:
    """Translate a trial's configuration into TRL's words."""
    parameters, technique = spec.hyperparameters, spec.technique
    arguments = SFTConfig(
        output_dir=str(spec.folder),
        per_device_train_batch_size=parameters.batch_size,  # the whole effective batch; see micro_batch.py
        gradient_accumulation_steps=1,
        num_train_epochs=parameters.epochs,
        learning_rate=parameters.learning_rate,
        lr_scheduler_type=parameters.lr_scheduler,
        warmup_steps=warmup_argument(parameters),
        weight_decay=parameters.weight_decay,
        max_grad_norm=parameters.max_grad_norm,
        max_length=technique.max_length,
        packing=technique.packing,
        eval_packing=False,
        completion_only_loss=technique.completion_only if has_completions(spec.train) else None,
        activation_checkpointing=checkpoints(technique, base.device),
        bf16=base.dtype is torch.bfloat16,
        fp16=base.dtype is torch.float16,
        **{"use_cpu": base.device == "cpu", **base.backend.arguments()},
        seed=spec.seed,
        dataset_kwargs={"skip_prepare_dataset": True} if skip_prepare else None,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **parameters.trl,
    )
    if arguments.n_gpu > 1:
        # One trial, one device: without this the trainer would spread over every GPU it sees, which TRL refuses.
        arguments._n_gpu = 1
    return arguments


def checkpoints(technique: SFT, device: str) -> bool:
    """Return whether activations are computed anew in the backward pass."""
    asked = technique.gradient_checkpointing
    return device != "cpu" if asked == "auto" else asked


def warmup_argument(parameters: Hyperparameters) -> float:
    """Return TRL's ``warmup_steps``: a whole number is steps, a part of 1 is a ratio."""
    if parameters.warmup_steps is not None:
        return parameters.warmup_steps
    return parameters.warmup_ratio or 0
