"""The weights that a trial trains: gathered from all ranks, copied, restored, saved and loaded."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias, cast

import torch
from peft import PeftModel, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sweeper.errors import TrialError

Adapted: TypeAlias = PeftModel | PreTrainedModel
"""A base with an adapter on it, or the copy of a base whose every weight is trained."""

ADAPTER_WEIGHTS = "adapter_model.safetensors"
MODEL_WEIGHTS = "model.safetensors"


def trained_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return what is trained, by name.

    Not as PEFT names it for its files: of virtual tokens those hold what a network made of the weights, and the
    weights cannot be told from it.
    """
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def count_weights(model: Adapted) -> int:
    """Return how many weights a model has, adapter included; packed in 4 bits they count as what they stand for."""
    if isinstance(model, PeftModel):
        _, count = model.get_nb_trainable_parameters()
        return int(count)
    return sum(weight.numel() for weight in model.parameters())


@torch.no_grad()
def put_back(model: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Restore what ``trained_weights`` returned; all ranks do."""
    with gathered(model):
        for name, weight in trained_weights(model).items():
            weight.copy_(weights[name])


def load_weights(model: torch.nn.Module, folder: Path) -> None:
    """Load the weights that ``save_weights`` wrote of an adapter of the same shape; all ranks do.

    Raises:
        TrialError: If there are none, or they do not fit.
    """
    path = folder / ADAPTER_WEIGHTS
    try:
        weights = load_file(path)
        with gathered(model):
            loaded = set_peft_model_state_dict(model, weights)
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        raise TrialError(f"the trial cannot start from the weights in {path}: {error}") from error
    if loaded.unexpected_keys or not weights:
        raise TrialError(f"the trial cannot start from the weights in {path}: they are of another adapter")


def save_weights(
    model: Adapted, folder: Path, *, tokenizer: PreTrainedTokenizerBase, dtype: torch.dtype, initial: Path | None
) -> Path:
    """Save an adapter as PEFT does, a whole model as transformers does; return the file with the weights.

    ``tokenizer`` and ``dtype`` are a whole model's. ``initial`` is the adapter as it began, if that changed the base's
    weights: what is saved then is the difference to it, a plain LoRA of twice the rank on the base as everybody has it.
    """
    if isinstance(model, PeftModel):
        more = {} if initial is None else {"path_initial_model_for_weight_conversion": str(initial)}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".* changes the base weights")  # which is what is undone here
            model.save_pretrained(folder, safe_serialization=True, **more)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty card; an export writes a real one
        return folder / ADAPTER_WEIGHTS
    model.to(dtype).save_pretrained(folder, max_shard_size="1TB")  # one file, whose checksum is the model's
    tokenizer.save_pretrained(folder)
    return folder / MODEL_WEIGHTS


@contextmanager
def gathered(model: torch.nn.Module) -> Iterator[None]:
    """Gather the trainable weights from all ranks for a ``with`` block that all ranks enter; rank 0's changes are kept.

    Only ZeRO stage 3 and FSDP2 shard them; otherwise this does nothing.
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


@contextmanager
def _gathered_tensors(model: torch.nn.Module) -> Iterator[None]:
    places = [
        (module, name, parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.requires_grad and isinstance(parameter, DTensor)
    ]
    for module, name, parameter in places:
        module._parameters[name] = torch.nn.Parameter(cast(DTensor, parameter.detach()).full_tensor())
    try:
        yield
    finally:
        for module, name, parameter in places:
            whole = module._parameters[name]
            assert whole is not None
            with torch.no_grad():
                parameter.copy_(distribute_tensor(whole.detach(), parameter.device_mesh, parameter.placements))
            module._parameters[name] = parameter
