"""PyTorch's FSDP2: every layer's weights, gradients and optimizer state sharded over processes."""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftConfig, PeftModel
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.nn.utils import clip_grad_norm_
from transformers import PreTrainedModel

from sweeper.training.backends.base import TrainingBackend
from sweeper.training.ranks import Ranks


class FSDPBackend(TrainingBackend):
    """One rank of a trial under FSDP2, within an existing process group.

    The model is sharded before the trainer sees it, like a model that transformers shards while loading.
    """

    keeps = False

    def __init__(self, ranks: Ranks, device: str) -> None:
        super().__init__(ranks=ranks)
        self._mesh = init_device_mesh(device.partition(":")[0], (ranks.size,))

    def load_arguments(self, device: str) -> dict[str, Any]:
        """Load into main memory: a device gets only its share."""
        return {"device_map": {"": "cpu"}}

    def attach(self, model: PreTrainedModel, config: PeftConfig, seed: int) -> PeftModel:
        """Put a new adapter on the base model, and shard both."""
        adapted = super().attach(model, config, seed)
        layers = set(model._no_split_modules or ())
        for module in model.modules():
            if type(module).__name__ in layers:
                fully_shard(module, mesh=self._mesh)
        fully_shard(model, mesh=self._mesh)
        register_fsdp_forward_method(model, "generate")
        adapted.is_distributed_loading_by_transformers = True  # the trainer then leaves placing and wrapping alone
        return adapted

    def arguments(self) -> dict[str, Any]:
        """Return no further fields of TRL's configuration: the trainer must not distribute anything."""
        return {}

    def prepare(self, trainer: Any) -> None:
        """Clip gradients by the norm over all ranks, as a plain tensor."""
        trainer.accelerator.clip_grad_norm_ = _clip


def _clip(parameters: Any, max_norm: float, norm_type: float = 2.0) -> torch.Tensor:
    norm = clip_grad_norm_(parameters, max_norm, norm_type)
    whole: torch.Tensor = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    return whole
