"""Base of every technique's trainer: takes an optimizer step in as many micro-batches as memory requires."""

from __future__ import annotations

from typing import Any

import torch

from sweeper.training.micro_batch import MicroBatch, WholeBatch, until_it_fits
from sweeper.training.resumable_trainer import ResumableTrainer


class MicroBatchedTrainer(ResumableTrainer):
    """Mixin before a TRL trainer.

    The trainer gets the effective batch whole and splits it into parts that fit. The loss of a batch is the mean over
    its rows, so each part counts by its rows; a technique whose loss is another mean overrides two methods.
    """

    control: Any
    data_collator: Any
    own_names = ("tokens_seen",)

    def __init__(self, micro_batch: MicroBatch, **arguments: Any) -> None:
        self.micro_batch = micro_batch
        self.tokens_seen = 0
        self._share = 1.0
        super().__init__(**arguments)
        self.collate = self.data_collator
        self.data_collator = lambda rows: {"whole": WholeBatch(rows)}
        # The collator needs every column of the tokenised rows; the model sees only what it returns.
        self.args.remove_unused_columns = False

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        """Sum the gradients of all parts of the effective batch, and return its loss."""
        whole: WholeBatch = inputs["whole"]
        seen_before = self.tokens_seen

        def attempt() -> torch.Tensor:
            self.tokens_seen = seen_before
            return self._train_on(model, whole)

        return until_it_fits(self.micro_batch, attempt, undo=model.zero_grad)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Return the mean loss over the validation split: the same whatever the size of the parts."""
        self.model.eval()
        self._share, whole = 1.0, WholeBatch(list(self.eval_dataset))
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = until_it_fits(self.micro_batch, lambda: self._mean_loss(whole), undo=lambda: None)
        self._forget_metrics()
        metrics = self._measures(loss)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any], *arguments: Any, **named: Any) -> Any:
        """Return the loss, as much of it as the rows are a share of their batch."""
        return super().compute_loss(model, inputs, *arguments, **named) * self._share

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: the batch is not collated yet, and nothing reads the count."""
        return 0

    def _train_on(self, model: torch.nn.Module, whole: WholeBatch) -> torch.Tensor:
        losses = []
        for part in whole.parts(self.micro_batch.rows):
            inputs = self.collate(part)
            masks = (value for name, value in inputs.items() if name.endswith("attention_mask"))
            self.tokens_seen += sum(int(mask.sum()) for mask in masks)
            self._share = len(part) / len(whole.rows)
            losses.append(super().training_step(model, inputs))
        self._share = 1.0
        return torch.stack(losses).sum()

    def _mean_loss(self, whole: WholeBatch) -> float:
        parts = whole.parts(self.micro_batch.rows)
        inputs = (self._prepare_inputs(self.collate(part)) for part in parts)
        losses = [float(self.compute_loss(self.model, each)) for each in inputs]
        return sum(loss * len(part) for loss, part in zip(losses, parts, strict=True)) / len(whole.rows)

    def _measures(self, loss: float) -> dict[str, float]:
        return {"eval_loss": loss}

    def _forget_metrics(self) -> None:
        """Drop what TRL gathered while evaluating: it would log it with the next training step."""
        for name in ("_metrics", "_stored_metrics"):
            getattr(self, name, {}).get("eval", {}).clear()
