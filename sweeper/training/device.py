"""Which device, number type and attention a trial runs with, resolved against what this machine has."""

from __future__ import annotations

import os
import resource
import sys
import time
from functools import cache

import psutil
import torch

from sweeper.compatibility import attention_refusal, best_attention
from sweeper.config.model import Attention, Dtype
from sweeper.errors import HardwareError
from sweeper.hardware import OtherLoad, cpus


def resolve_device(wanted: str) -> str:
    """Return ``cpu`` or ``cuda:N``.

    Raises:
        HardwareError: If CUDA is asked for and there is none, or not that many devices.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise HardwareError(
            f"executor.device is {wanted!r}, but PyTorch {torch.__version__} sees no CUDA device here; "
            "use `device: cpu` or `auto`, or see `sweeper doctor`"
        )
    index = int(wanted.partition(":")[2] or 0) if wanted != "auto" else 0
    if index >= torch.cuda.device_count():
        raise HardwareError(
            f"executor.device is {wanted!r}, but there are only {torch.cuda.device_count()} CUDA devices"
        )
    return f"cuda:{index}"


def resolve_dtype(wanted: Dtype, device: str) -> torch.dtype:
    """Return what the model computes in.

    On the CPU ``auto`` is float32 here: a study names the type that was measured when it began (see ``cpu_dtype``).

    Raises:
        HardwareError: If the device cannot compute in the type asked for.
    """
    if wanted != "auto":
        dtype: torch.dtype = getattr(torch, wanted)
        if dtype is torch.float16 and device == "cpu":
            raise HardwareError("model.dtype is float16, which the CPU does not train in; use float32 or bfloat16")
        if dtype is torch.bfloat16 and device != "cpu" and not torch.cuda.is_bf16_supported():
            raise HardwareError("model.dtype is bfloat16, which this GPU does not have; use float16 or float32")
        return dtype
    if device == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


@cache
def use_free_cores() -> str | None:
    """Let torch use as many threads as there are processors that no other process keeps busy, once per process.

    Where all of them are busy it uses them all: each thread then gets its share.

    Returns:
        What was decided, for the user; None where OMP_NUM_THREADS or MKL_NUM_THREADS decides.
    """
    if os.environ.keys() & {"OMP_NUM_THREADS", "MKL_NUM_THREADS"}:
        return None
    load = OtherLoad()
    time.sleep(_LOOK_S)
    taken, usable = load.cores(), min(cpus(), torch.get_num_threads())
    threads = threads_for(usable, taken)
    torch.set_num_threads(threads)
    return f"{threads} of {usable} cores are used: {taken:.1f} are taken by other processes (OMP_NUM_THREADS overrides)"


_LOOK_S = 0.5


def threads_for(cores: int, taken: float) -> int:
    """Return how many threads suit ``cores`` processors of which others keep ``taken`` busy."""
    return round(cores - taken) or cores


def resolve_attention(wanted: Attention, device: str, dtype: torch.dtype) -> str:
    """Return the attention implementation in transformers' words.

    Raises:
        HardwareError: If one is asked for that cannot run.
    """
    name = str(dtype).removeprefix("torch.")
    capability = None if device == "cpu" else float("{}.{}".format(*torch.cuda.get_device_capability(device)))
    if wanted == "auto":
        return best_attention(device, name, capability)
    reason = attention_refusal(wanted, device, name, capability)
    if reason is not None:
        raise HardwareError(f"model.attention is {wanted}, {reason}")
    return wanted


def free_memory_bytes(device: str) -> int:
    """Return the memory that training may use on the device, in bytes."""
    if device == "cpu":
        return int(psutil.virtual_memory().available)
    return int(torch.cuda.mem_get_info(torch.device(device))[0])


def peak_memory_bytes(device: str) -> int:
    """Return the peak of device memory since ``reset_peak_memory``; on the CPU that of the whole process so far."""
    if device != "cpu":
        return int(torch.cuda.max_memory_allocated(torch.device(device)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak_memory(device: str) -> None:
    """Begin a new peak; the CPU keeps one peak per process and cannot."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(torch.device(device))
