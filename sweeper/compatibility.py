"""Refusals of what this machine or the libraries cannot do; imports no torch.

Each rule gives a reason and a remedy, or None. ``resolve_study`` applies them before anything is loaded or downloaded.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from sweeper.config.adapter import AnyAdapter, LowRank, QLoRA
from sweeper.config.backend import FSDP, TRL, Backend, DeepSpeed, Unsloth, in_own_processes, processes
from sweeper.config.base import kind_of
from sweeper.config.executor import PerGpuExecutorConfig, RayExecutorConfig
from sweeper.config.model import Attention, ModelConfig
from sweeper.config.study import StudyConfig
from sweeper.config.technique import Technique
from sweeper.errors import HardwareError
from sweeper.hardware import Gpu, pick_devices

NOT_INSTALLED = "not installed here"
"""Part of every reason that an installation would resolve."""

BF16_CAPABILITY = 8.0  # NVIDIA Ampere, the first with bfloat16
_FLASH: dict[Attention, tuple[float, str, str]] = {
    "flash_attention_3": (9.0, "flash_attn_interface", "flash-attn-3"),
    "flash_attention_2": (8.0, "flash_attn", "flash-attn"),
}
"""Compute capability (Hopper, Ampere: github.com/Dao-AILab/flash-attention), and the module and package that
transformers 5.23 looks for (``is_flash_attn_3_available`` and ``_2_``); the newest first."""

UNSLOTH_INSTALL = (
    "pip install --no-deps unsloth unsloth_zoo (its own pins are older than sweeper's libraries; version 2026.10.9 "
    "works with them)"
)


@dataclass(frozen=True)
class Case:
    """The parts of a trial, its device (``cpu`` or ``cuda:N``), and the GPUs that the driver lists."""

    technique: Technique
    adapter: AnyAdapter
    backend: Backend
    model: ModelConfig
    device: str
    gpus: Sequence[Gpu] = ()

    @property
    def on_cpu(self) -> bool:
        """Whether the trial runs without a GPU."""
        return self.device == "cpu"

    @property
    def capability(self) -> float | None:
        """CUDA compute capability of the device, if known."""
        index = int(self.device.partition(":")[2] or 0)
        return None if self.on_cpu or index >= len(self.gpus) else self.gpus[index].capability


def require(config: StudyConfig, device: str, gpus: Sequence[Gpu]) -> None:
    """Raise HardwareError, with every reason and remedy, if the study cannot run on a device (``cpu``, ``cuda:N``)."""
    if reasons := study_refusals(config, device, gpus):
        raise HardwareError("\n".join(reasons))


def study_refusals(config: StudyConfig, device: str, gpus: Sequence[Gpu]) -> list[str]:
    """Return every reason why some trial of a study cannot run, each once."""
    cases = (
        Case(config.technique, adapter, config.backend, model, device, gpus)
        for model in config.models.values()
        for adapter in config.variants(config.search.space)
    )
    return list(dict.fromkeys(reason for case in cases for reason in refusals(case)))


def require_workers(config: StudyConfig, gpus: Sequence[Gpu]) -> None:
    """Raise HardwareError, with reason and remedy, if the study's workers cannot be started from this machine."""
    executor = config.executor
    if isinstance(executor, PerGpuExecutorConfig):
        pick_devices(executor.devices, executor.device, gpus)
    if isinstance(executor, RayExecutorConfig) and (reason := _missing("executor: ray", "ray", "ray")) is not None:
        raise HardwareError(reason)


def refusals(case: Case) -> Iterator[str]:
    """Return every reason why a trial cannot run, each with its remedy."""
    return filter(None, (rule(case) for rule in RULES))


def attention_refusal(kind: Attention, device: str, dtype: str, capability: float | None) -> str | None:
    """Return why an attention implementation (in transformers' terms, or ``auto``) cannot run, or None.

    ``device`` is ``cpu`` or ``cuda:N``, and ``capability`` its CUDA compute capability, if known.
    """
    if kind == "flex_attention" and device == "cpu":
        return "which has no backward pass on the CPU; use sdpa"
    if kind not in _FLASH:
        return None
    needs, module, package = _FLASH[kind]
    if device == "cpu":
        return "which needs a CUDA device; use sdpa, or auto"
    if capability is not None and capability < needs:
        return f"which needs compute capability {needs}, and {device} has {capability}; use sdpa, or auto"
    if find_spec(module) is None:
        return f"which needs the package {package}, {NOT_INSTALLED} (pip install {package}); use sdpa, or auto"
    if dtype == "float32":
        return "which does not compute in float32; use model.dtype: bfloat16, or attention: sdpa"
    return None


def best_attention(device: str, dtype: str, capability: float | None) -> Attention:
    """Return the meaning of ``attention: auto``: the newest Flash Attention that can run, else PyTorch's SDPA."""
    runs = (kind for kind in _FLASH if attention_refusal(kind, device, dtype, capability) is None)
    return next(runs, "sdpa")


def compiler_refusal() -> str | None:
    """Return why ``torch.compile`` cannot run (on GPUs Triton compiles its launchers), or None."""
    compiler = os.environ.get("CXX", "g++")  # as torch 2.13 looks for it: torch._inductor.config.cpp.cxx
    if shutil.which(compiler) is not None:
        return None
    return f"needs a C++ compiler, and there is no {compiler} on the path; install one, or leave compile out"


def _dtype(case: Case) -> str | None:
    if case.on_cpu and case.model.dtype == "float16":
        return "model.dtype is float16, which the CPU does not train in; use float32, bfloat16 or auto"
    if case.model.dtype == "bfloat16" and case.capability is not None and case.capability < BF16_CAPABILITY:
        return "model.dtype is bfloat16, which this GPU does not have; use float16, float32 or auto"
    return None


def _attention(case: Case) -> str | None:
    wanted = case.model.attention
    reason = attention_refusal(wanted, case.device, case.model.dtype, case.capability)
    return None if reason is None else f"model.attention is {wanted}, {reason}"


def _trl(case: Case) -> str | None:
    backend = case.backend
    if not isinstance(backend, TRL):
        return None
    if backend.compile and compiler_refusal() is not None:
        return f"backend.compile {compiler_refusal()}"
    if not backend.liger:
        return None
    if case.on_cpu:
        return "backend.liger needs a CUDA device: its kernels are written for GPUs; leave it out"
    return _missing("backend.liger", "liger_kernel", "liger")


def _deepspeed(case: Case) -> str | None:
    """Stage 3 of DeepSpeed does not train an int8 base correctly."""
    backend, adapter = case.backend, case.adapter
    if not isinstance(backend, DeepSpeed):
        return None
    if backend.stage == 3 and isinstance(adapter, QLoRA) and adapter.quantization == "int8":
        return "backend: deepspeed with stage 3 does not train an int8 base correctly; use nf4, or stage: 2"
    if backend.offload != "none" and case.on_cpu:
        return "backend.offload moves state to main memory, where training on the CPU already is; leave it out"
    if case.model.dtype == "bfloat16" and case.on_cpu:
        return "backend: deepspeed computes in float32 on the CPU; use model.dtype: float32, or auto"
    return _missing("backend: deepspeed", "deepspeed", "deepspeed")


def _fsdp(case: Case) -> str | None:
    """FSDP trains a quantised base with other results than one process, because its weights are packed."""
    if not isinstance(case.backend, FSDP):
        return None
    if isinstance(case.adapter, QLoRA):
        return (
            "backend: fsdp trains a quantised base with other results than one process, as its weights are packed; "
            "use adapter: lora, or backend: {kind: deepspeed, stage: 2}"
        )
    if case.model.dtype == "float16":
        return "backend: fsdp does not scale the loss, which float16 needs; use model.dtype: bfloat16 or float32"
    return None


def _processes(case: Case) -> str | None:
    if case.on_cpu or not isinstance(case.backend, DeepSpeed | FSDP):
        return None
    if case.device != "cuda:0":
        return (
            f"executor.device is {case.device}, but the processes of a trial take the first GPUs; leave it out, and "
            "set CUDA_VISIBLE_DEVICES to choose among them"
        )
    count = processes(case.backend, len(case.gpus))
    if count > len(case.gpus):
        return f"backend.processes is {count}, but there are {len(case.gpus)} GPUs, and each process needs one"
    return None


def _unsloth(case: Case) -> str | None:
    """Unsloth only quantises to nf4, with double quantisation."""
    if not isinstance(case.backend, Unsloth):
        return None
    if case.on_cpu:
        return "backend: unsloth needs a CUDA device, and the study trains on the CPU; use backend: trl"
    adapter = case.adapter
    if isinstance(adapter, QLoRA) and (adapter.quantization, adapter.double_quantization) != ("nf4", True):
        return "backend: unsloth only quantises to nf4, twice; use plain adapter: qlora, or backend: trl"
    if case.model.attention != "auto":
        return "backend: unsloth chooses the attention itself; leave model.attention out"
    if find_spec("unsloth") is None:
        return f"backend: unsloth needs the package unsloth, {NOT_INSTALLED}: {UNSLOTH_INSTALL}"
    return None


def _own_processes(case: Case) -> str | None:
    """Unsloth, DeepSpeed and FSDP train plain LoRA and QLoRA with `sft`; everything else runs with `trl`."""
    backend, adapter = case.backend, case.adapter
    if not in_own_processes(backend):
        return None
    if case.technique.kind != "sft":
        return f"backend: {backend.kind} trains sft; {case.technique.kind} runs with backend: trl"
    if not isinstance(adapter, LowRank):
        return f"backend: {backend.kind} trains LoRA and QLoRA; adapter {kind_of(adapter)} runs with backend: trl"
    options = {"init": adapter.init != "default", "dora": adapter.dora, "lora_plus": adapter.lora_plus is not None}
    named = next((name for name, given in options.items() if given), None)
    return None if named is None else f"backend: {backend.kind} trains plain LoRA; {named} runs with backend: trl"


def _loftq(case: Case) -> str | None:
    if getattr(case.adapter, "init", None) != "loftq" or not case.on_cpu:
        return None
    return (
        "adapter: init loftq is computed on CUDA by PEFT, and the study trains on the CPU; use init default, gaussian "
        "or eva, or a machine with a GPU"
    )


_Rule = Callable[[Case], str | None]

RULES: tuple[_Rule, ...] = (_dtype, _attention, _trl, _own_processes, _deepspeed, _fsdp, _unsloth, _processes, _loftq)


def _missing(what: str, module: str, extra: str) -> str | None:
    if find_spec(module) is not None:
        return None
    return f"{what} needs the package {module.replace('_', '-')}, {NOT_INSTALLED}: pip install 'sweeper[{extra}]'"
