"""Device, number type, attention and threads of training, resolved against this machine."""

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
        HardwareError: If the CUDA device does not exist.
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
    """Return the number type of a model.

    On the CPU ``auto`` is float32 here: a study names the type that was measured when it began (see ``cpu_dtype``).

    Raises:
        HardwareError: If the device does not support it.
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
    """Give torch as many threads as there are idle processors, once per process; all of them if none is idle.

    Returns:
        The decision in words; None if OMP_NUM_THREADS or MKL_NUM_THREADS is set, which it respects.
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
        HardwareError: If it cannot run here.
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
    """Return the free memory of the device in bytes."""
    if device == "cpu":
        return int(psutil.virtual_memory().available)
    return int(torch.cuda.mem_get_info(torch.device(device))[0])


def peak_memory_bytes(device: str) -> int:
    """Return the peak of device memory since ``reset_peak_memory``; on the CPU that of the process since it started."""
    if device != "cpu":
        return int(torch.cuda.max_memory_allocated(torch.device(device)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak_memory(device: str) -> None:
    """Reset the peak of device memory; that of a process cannot be reset."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(torch.device(device))
