"""Loading of the base model by a trial's backend."""

from __future__ import annotations

from datetime import timedelta
from typing import assert_never

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch's own stubs leave it out

from sweeper.config.backend import FSDP, TRL, DeepSpeed, Unsloth
from sweeper.config.trial import TrialSpec
from sweeper.training.backends.base import TrainingBackend
from sweeper.training.base_model import BaseModel, load_base
from sweeper.training.device import resolve_dtype
from sweeper.training.ranks import Ranks

_TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for another (torch's default for gloo; NCCL's is too short for generating text)."""


def load(spec: TrialSpec, ranks: Ranks, port: int) -> BaseModel:
    """Load the base model for a trial's backend, once the trial's processes have met through the store at ``port``."""
    device = spec.device if spec.device == "cpu" or ranks.size == 1 else f"cuda:{ranks.rank}"
    if isinstance(spec.backend, Unsloth):
        from sweeper.training.backends.unsloth import load_with_unsloth

        return load_with_unsloth(spec, device)
    backend: TrainingBackend  # made after the ranks have met: it takes the process group as it finds it
    match spec.backend:
        case DeepSpeed():
            from sweeper.training.backends.deepspeed import DeepSpeedBackend

            meet(ranks, device, port)
            dtype = resolve_dtype(spec.model.dtype, device)
            backend = DeepSpeedBackend(spec.backend, ranks, device, dtype, spec.hyperparameters.batch_size)
        case FSDP():
            from sweeper.training.backends.fsdp import FSDPBackend

            meet(ranks, device, port)
            backend = FSDPBackend(ranks, device)
        case TRL():
            raise AssertionError("TRL by itself trains in the process that runs the study")
        case _:
            assert_never(spec.backend)
    return load_base(spec.model_folder, spec.model, spec.adapter, device, spec.technique.head, backend)


def meet(ranks: Ranks, device: str, port: int) -> None:
    """Form the process group: gloo for numbers on the CPU, NCCL for tensors on GPUs."""
    if device != "cpu":
        torch.cuda.set_device(torch.device(device))
    dist.init_process_group(
        "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl",
        store=TCPStore("127.0.0.1", port, is_master=False),
        rank=ranks.rank,
        world_size=ranks.size,
        timeout=_TIMEOUT,
    )
