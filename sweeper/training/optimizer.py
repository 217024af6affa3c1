"""Optimizers: LoRA+'s learning rates, and their state in parts that safetensors and JSON can hold, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from peft.optimizers import create_loraplus_optimizer
from transformers import Trainer

from sweeper.config.adapter import AnyAdapter, LowRank


def give_lora_plus(trainer: Trainer, adapter: AnyAdapter) -> None:
    """Give a trainer its own kind of optimizer with B's learning rate raised, if the adapter asks for LoRA+.

    Call it before training, once the adapter has its first weights and its type.
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


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return an optimizer's per-parameter state, tensors and numbers, each by its path as JSON."""
    return dict(_leaves(optimizer.state_dict()["state"]))


def _leaves(state: Mapping[Any, Any], path: tuple[Any, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield each value with its path; some optimizers nest mappings."""
    for key, value in state.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, key))
        else:
            yield json.dumps((*path, key)), value


def restore_optimizer(optimizer: torch.optim.Optimizer, kept: Mapping[str, Any], groups: list[dict[str, Any]]) -> None:
    """Restore what ``optimizer_state`` returned and the ``param_groups`` in a new optimizer over the same parameters.

    Torch alone would round state of another type than the weights.
    """
    state: dict[int, dict[str, Any]] = {}
    for path, value in kept.items():
        index, *between, last = json.loads(path)
        place = state.setdefault(index, {})
        for key in between:
            place = place.setdefault(key, {})
        place[last] = value
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, of in state.items():
        loaded = optimizer.state[parameters[index]]
        for name, value in of.items():
            if isinstance(value, torch.Tensor) and value.dtype is not loaded[name].dtype:
                loaded[name] = value.to(loaded[name].device)
