"""The state of an optimizer in parts that safetensors and JSON can hold, and back again, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch


def leaves(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return all that an optimizer keeps of its weights, tensors and numbers, each by its path as JSON."""
    return dict(_leaves(optimizer.state_dict()["state"]))


def _leaves(state: Mapping[Any, Any], path: tuple[Any, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield what an optimizer keeps, each with its path; some keep mappings within mappings."""
    for key, value in state.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, key))
        else:
            yield json.dumps((*path, key)), value


def restore(optimizer: torch.optim.Optimizer, kept: Mapping[str, Any], groups: list[dict[str, Any]]) -> None:
    """Give an optimizer back its state; torch alone would round what is kept in another type than the weights.

    Args:
        optimizer: A new one over the same weights in the same order.
        kept: What ``leaves`` returned.
        groups: Its ``param_groups`` as ``state_dict`` had them.
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
