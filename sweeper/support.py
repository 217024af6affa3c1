"""What a study asks for that this machine or the libraries cannot do: every reason in one place. Imports no torch.

One rule a question; each gives the reason and the remedy, or None. ``resolve_study`` asks them all before anything is
loaded or downloaded.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec

from sweeper.config.adapter import QLoRA
from sweeper.config.backend import FSDP, TRL, DeepSpeed, Unsloth, processes
from sweeper.config.model import Attention
from sweeper.config.study import StudyConfig
from sweeper.errors import HardwareError
from sweeper.hardware import Gpu

BF16_CAPABILITY = 8.0  # NVIDIA Ampere, the first with bfloat16
_FLASH_2_CAPABILITY = 8.0  # Ampere: github.com/Dao-AILab/flash-attention, "NVIDIA CUDA Support"
_FLASH_3_CAPABILITY = 9.0  # Hopper: the same page, "FlashAttention-3 beta release"

UNSLOTH_INSTALL = (
    "pip install --no-deps unsloth unsloth_zoo (its own pins are older than sweeper's libraries; version 2026.10.9 was "
    "seen to work with them)"
)

_Rule = Callable[[StudyConfig, str, Sequence[Gpu]], str | None]


def require(config: StudyConfig, device: str, gpus: Sequence[Gpu]) -> None:
    """Refuse a study that cannot be served.

    Args:
        config: The study.
        device: ``cpu`` or ``cuda:N``, where it is to run.
        gpus: What the driver lists.

    Raises:
        HardwareError: With every reason, and what to do.
    """
    reasons = list(refusals(config, device, gpus))
    if reasons:
        raise HardwareError("\n".join(reasons))


def refusals(config: StudyConfig, device: str, gpus: Sequence[Gpu]) -> Iterator[str]:
    """Yield every reason why a study cannot be served, each with its remedy."""
    for rule in RULES:
        reason = rule(config, device, gpus)
        if reason is not None:
            yield reason


def attention_refusal(kind: Attention, device: str, dtype: str, capability: float | None) -> str | None:
    """Return why an attention cannot run, or None where it can.

    Args:
        kind: In transformers' words, or ``auto``.
        device: ``cpu`` or ``cuda:N``.
        dtype: What the model computes in, or ``auto``.
        capability: CUDA compute capability of the device; None where it is not known.
    """
    needs = {"flash_attention_2": _FLASH_2_CAPABILITY, "flash_attention_3": _FLASH_3_CAPABILITY}.get(kind)
    if kind == "flex_attention" and device == "cpu":
        return "which has no backward pass on the CPU; use sdpa"
    if needs is None:
        return None
    module, package = _FLASH_PARTS[kind]
    if device == "cpu":
        return "which needs a CUDA device; use sdpa, or auto"
    if capability is not None and capability < needs:
        return f"which needs compute capability {needs}, and {device} has {capability}; use sdpa, or auto"
    if find_spec(module) is None:
        return f"which needs the package {package}, not installed here (pip install {package}); use sdpa, or auto"
    if dtype == "float32":
        return "which does not compute in float32; use model.dtype: bfloat16, or attention: sdpa"
    return None


_FLASH_PARTS = {
    "flash_attention_2": ("flash_attn", "flash-attn"),
    "flash_attention_3": ("flash_attn_interface", "flash-attn-3"),
}
"""What transformers 5.23 looks for (``is_flash_attn_2_available`` and ``_3_``): a module, of a package of that name."""


def best_attention(device: str, dtype: str, capability: float | None) -> Attention:
    """Return what ``attention: auto`` is: the newest Flash Attention that can run, else PyTorch's own."""
    newest_first: tuple[Attention, ...] = ("flash_attention_3", "flash_attention_2")
    runs = (kind for kind in newest_first if attention_refusal(kind, device, dtype, capability) is None)
    return next(runs, "sdpa")


def compiler_refusal() -> str | None:
    """Return why ``torch.compile`` cannot run; on GPUs too, where Triton compiles its launchers."""
    compiler = os.environ.get("CXX", "g++")  # as torch 2.13 looks for it: torch._inductor.config.cpp.cxx
    if shutil.which(compiler) is not None:
        return None
    return f"needs a C++ compiler, and there is no {compiler} on the path; install one, or leave compile out"


def _dtype(config: StudyConfig, device: str, gpus: Sequence[Gpu]) -> str | None:
    if device == "cpu" and config.model.dtype == "float16":
        return "model.dtype is float16, which the CPU does not train in; use float32, bfloat16 or auto"
    capability = _capability(device, gpus)
    if config.model.dtype == "bfloat16" and capability is not None and capability < BF16_CAPABILITY:
        return "model.dtype is bfloat16, which this GPU does not have; use float16, float32 or auto"
    return None


def _attention(config: StudyConfig, device: str, gpus: Sequence[Gpu]) -> str | None:
    wanted = config.model.attention
    reason = attention_refusal(wanted, device, config.model.dtype, _capability(device, gpus))
    return None if reason is None else f"model.attention is {wanted}, {reason}"


def _trl(config: StudyConfig, device: str, gpus: Sequence[Gpu]) -> str | None:
    backend = config.backend
    if not isinstance(backend, TRL):
        return None
    if backend.compile and compiler_refusal() is not None:
        return f"backend.compile {compiler_refusal()}"
    if not backend.liger:
        return None
    if device == "cpu":
        return "backend.liger needs a CUDA device: its kernels are written for GPUs; leave it out"
    return _missing("backend.liger", "liger_kernel", "liger")


def _deepspeed(config: StudyConfig, device: str, gpus: Sequence[Gpu]) -> str | None:
    backend = config.backend
    if not isinstance(backend, DeepSpeed):
        return None
    if backend.stage == 3 and isinstance(config.adapter, QLoRA) and config.adapter.quantization == "int8":
        return (
            "backend: deepspeed with stage 3 was never seen to train an int8 base right; use quantization: nf4, or "
            "stage: 2"
        )
    if backend.offload != "none" and device == "cpu":
        return "backend.offload moves to main memory, which on the CPU is where training is; leave it out"
    if config.model.dtype == "bfloat16" and device == "cpu":
        return "backend: deepspeed computes in float32 on the CPU; use model.dtype: float32, or auto"
    return _missing("backend: deepspeed", "deepspeed", "deepspeed")


def _fsdp(config: StudyConfig, device: str, gpus: Sequence[Gpu]) -> str | None:
    if not isinstance(config.backend, FSDP):
        return None
    if isinstance(config.adapter, QLoRA):
        return (
            "backend: fsdp does not train a quantised base as one process does, for its weights are packed; use "
            "adapter: lora, or backend: {kind: deepspeed, stage: 2}"
        )
    if config.model.dtype == "float16":
        return "backend: fsdp does not scale the loss, which float16 needs; use model.dtype: bfloat16 or float32"
    return None


def _processes(config: StudyConfig, device: str, gpus: Sequence[Gpu]) -> str | None:
    count = processes(config.backend, len(gpus))
    if device == "cpu" or not isinstance(config.backend, DeepSpeed | FSDP):
        return None
    if device != "cuda:0":
        return (
            f"executor.device is {config.executor.device!r}, but the processes of a trial take the first GPUs; "
            "leave it out, and set CUDA_VISIBLE_DEVICES to choose among them"
        )
    if count > len(gpus):
        return f"backend.processes is {count}, but there are {len(gpus)} GPUs, and each process takes one of its own"
    return None


def _unsloth(config: StudyConfig, device: str, gpus: Sequence[Gpu]) -> str | None:
    if not isinstance(config.backend, Unsloth):
        return None
    if device == "cpu":
        return "backend: unsloth needs a CUDA device, which is not here or not asked for; use backend: trl"
    if isinstance(config.adapter, QLoRA) and (config.adapter.quantization, config.adapter.double_quantization) != (
        "nf4",
        True,
    ):
        return "backend: unsloth quantises to nf4, twice; use adapter: qlora without other settings, or backend: trl"
    if config.model.attention != "auto":
        return "backend: unsloth chooses the attention itself; leave model.attention out"
    if find_spec("unsloth") is None:
        return f"backend: unsloth needs the package unsloth, not installed here: {UNSLOTH_INSTALL}"
    return None


RULES: tuple[_Rule, ...] = (_dtype, _attention, _trl, _deepspeed, _fsdp, _unsloth, _processes)
"""The next rule is one more function here."""


def _missing(what: str, module: str, extra: str) -> str | None:
    if find_spec(module) is not None:
        return None
    return f"{what} needs the package {module.replace('_', '-')}, not installed here: pip install 'sweeper[{extra}]'"


def _capability(device: str, gpus: Sequence[Gpu]) -> float | None:
    index = int(device.partition(":")[2] or 0)
    return None if device == "cpu" or index >= len(gpus) else gpus[index].capability
