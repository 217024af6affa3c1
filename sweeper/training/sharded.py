"""An adapter whose weights are spread over processes, put together for an instant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor, distribute_tensor

from sweeper.training.weights import load_weights, put_back


def restore(model: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Give what is trained the weights that it had; all ranks do."""
    with gathered(model):
        put_back(model, weights)


def begin_from(model: torch.nn.Module, folder: Path) -> None:
    """Give a new adapter the weights that another one of the same shape was saved with; all ranks do.

    Raises:
        TrialError: If they do not fit.
    """
    with gathered(model):
        load_weights(model, folder)


@contextmanager
def gathered(model: torch.nn.Module) -> Iterator[None]:
    """Make the trainable weights whole for the length of a ``with`` block; all ranks enter it, the first one's count.

    What is changed in the block is kept. Of ZeRO stage 3 and FSDP2; elsewhere the weights are whole already.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if any(hasattr(parameter, "ds_id") for parameter in trainable):
        import deepspeed

        with deepspeed.zero.GatheredParameters(trainable, modifier_rank=0):
            yield
    elif any(isinstance(parameter, DTensor) for parameter in trainable):
        with _gathered_tensors(model):
            yield
    else:
        yield


def _whole(parameter: Any) -> torch.Tensor:
    whole: torch.Tensor = parameter.detach().full_tensor()
    return whole


@contextmanager
def _gathered_tensors(model: torch.nn.Module) -> Iterator[None]:
    places = [
        (module, name, parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.requires_grad and isinstance(parameter, DTensor)
    ]
    for module, name, parameter in places:
        module._parameters[name] = torch.nn.Parameter(_whole(parameter))
    try:
        yield
    finally:
        for module, name, parameter in places:
            whole = module._parameters[name]
            assert whole is not None
            with torch.no_grad():
                parameter.copy_(distribute_tensor(whole.detach(), parameter.device_mesh, parameter.placements))
            module._parameters[name] = parameter
