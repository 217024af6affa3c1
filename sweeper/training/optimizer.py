"""Optimizers that look at what kind of adapter they train."""

from __future__ import annotations

from peft.optimizers import create_loraplus_optimizer
from transformers import Trainer

from sweeper.config.adapter import AnyAdapter, LowRank


def give_lora_plus(trainer: Trainer, adapter: AnyAdapter) -> None:
    """Give a trainer LoRA+'s optimizer where the adapter asks for it: of the trainer's own kind, with B's rate raised.

    To be called before training, once the adapter has its first weights and its type.
    """
    if not isinstance(adapter, LowRank) or not adapter.raises_b:
        return
    kind, options = trainer.get_optimizer_cls_and_kwargs(trainer.args, trainer.model)
    trainer.optimizer = create_loraplus_optimizer(
        trainer.model,
        kind,
        loraplus_lr_ratio=adapter.lora_plus,
        loraplus_weight_decay=trainer.args.weight_decay,
        **options,
    )
