"""Number type for training on this machine's CPU: float32 or bfloat16, the faster by a measurement that is remembered.

Which one is faster depends on the processor: with instructions for bfloat16 it may win by a factor of two, without them
it loses by a factor of twenty. Only the frozen base computes in it; adapters, optimizer and losses stay in float32.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, TypeAdapter, ValidationError

from sweeper.config.backend import TRL
from sweeper.config.study import StudyConfig
from sweeper.errors import UserError
from sweeper.files.atomic import write_json
from sweeper.hardware import cpu_features, cpu_name
from sweeper.paths import cache_folder

CpuType = Literal["float32", "bfloat16"]

VARIABLE = "SWEEPER_CPU_DTYPE"
"""The environment variable that decides instead of a measurement."""

_HIDDEN, _INNER, _HEADS, _ROWS, _LENGTH, _RANK = 576, 1536, 9, 8, 32, 16  # a layer of SmolLM2-135M and a small pass
_REPEATS = 4
_LIMIT_S = 1.5  # a type without instructions of its own is slow enough to be known after one pass

_Seconds = dict[CpuType, Annotated[float, Field(gt=0, allow_inf_nan=False)]]
_REMEMBERED = TypeAdapter(dict[str, _Seconds])


@dataclass(frozen=True)
class CpuDtype:
    """What ``dtype: auto`` is on this CPU, and why."""

    dtype: CpuType
    reason: str


def is_measured(config: StudyConfig) -> bool:
    """Return whether a study leaves the type to a measurement: trials in this process that train adapters."""
    adapters = (one.adapter for one in config.adapters.values())
    automatic = any(model.dtype == "auto" for model in config.models.values())
    return automatic and isinstance(config.backend, TRL) and not any(adapter.is_full for adapter in adapters)


def is_quantised(config: StudyConfig) -> bool:
    """Return whether a base model of the study is quantised."""
    adapters = (one.adapter for one in config.adapters.values())
    return any(adapter.is_quantised for adapter in adapters)


def known(*, quantised: bool) -> CpuDtype | None:
    """Return the type if the environment names it or it was measured before; imports no torch.

    Raises:
        UserError: If the environment names another type.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if named not in get_args(CpuType):
            raise UserError(f"{VARIABLE} is {named!r}; it must be one of {', '.join(get_args(CpuType))}")
        return CpuDtype(named, f"{VARIABLE} says so")  # type: ignore[arg-type]
    seconds = _remembered().get(_key(quantised), {})
    return _faster(seconds) if len(seconds) == len(get_args(CpuType)) else None


def pick(*, quantised: bool) -> CpuDtype:
    """Return the type; measure it, which takes about a second, if it is not known yet.

    Raises:
        UserError: If the environment names another type.
    """
    found = known(quantised=quantised)
    if found is None:
        seconds = measure(quantised=quantised)
        with suppress(OSError):  # a cache that cannot be written costs another measurement next time
            write_json(_file(), {**_remembered(), _key(quantised): seconds})
        found = _faster(seconds)
    return found


def measure(*, quantised: bool) -> dict[CpuType, float]:
    """Return the seconds of a layer's forward and backward pass in each type, the best of several in turns."""
    steps = {dtype: _step(dtype, quantised) for dtype in get_args(CpuType)}
    begun = time.perf_counter()
    seconds = {dtype: _timed(step) for dtype, step in steps.items()}  # first passes set things up
    for _ in range(_REPEATS):
        if time.perf_counter() - begun < _LIMIT_S:
            seconds = {dtype: min(seconds[dtype], _timed(step)) for dtype, step in steps.items()}
    return seconds


def _timed(step: Callable[[], None]) -> float:
    begun = time.perf_counter()
    step()
    return time.perf_counter() - begun


def _step(dtype: CpuType, quantised: bool) -> Callable[[], None]:
    """Return one pass through a frozen decoder layer with LoRA beside its linear layers, as packed training does it."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention, silu

    kind: torch.dtype = getattr(torch, dtype)
    shapes = dict.fromkeys(("q", "k", "v", "o"), (_HIDDEN, _HIDDEN))
    shapes |= {"gate": (_HIDDEN, _INNER), "up": (_HIDDEN, _INNER), "down": (_INNER, _HIDDEN)}
    layers = {name: _linear(*shape, kind, quantised) for name, shape in shapes.items()}
    lora = {name: (torch.randn(_RANK, a) / a, torch.randn(b, _RANK)) for name, (a, b) in shapes.items()}
    for factors in lora.values():
        for factor in factors:
            factor.requires_grad_()
    inputs = torch.randn(_ROWS * _LENGTH, _HIDDEN, dtype=kind, requires_grad=True)

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        a, b = lora[name]
        out: torch.Tensor = layers[name](x) + (x.float() @ a.t() @ b.t()).to(kind)
        return out

    def heads(x: torch.Tensor) -> torch.Tensor:
        return x.view(_ROWS, _LENGTH, _HEADS, -1).transpose(1, 2).float()

    def step() -> None:
        query, key, value = (heads(linear(name, inputs)) for name in "qkv")
        attended = scaled_dot_product_attention(query, key, value, is_causal=True)
        x = inputs + linear("o", attended.transpose(1, 2).reshape(inputs.shape).to(kind))
        x = x + linear("down", silu(linear("gate", x)) * linear("up", x))
        x.float().square().mean().backward()  # type: ignore[no-untyped-call]

    return step


def _linear(width: int, out: int, dtype: Any, quantised: bool) -> Any:
    import torch

    if not quantised:
        return torch.nn.Linear(width, out, bias=False, dtype=dtype).requires_grad_(False)
    from bitsandbytes.nn import Linear4bit

    layer = Linear4bit(width, out, bias=False, compute_dtype=dtype, quant_type="nf4")
    layer.support_avx512bf16_for_cpu = False  # as in training, see ``base_model``
    return layer.to("cpu").requires_grad_(False)


def _faster(seconds: Mapping[CpuType, float]) -> CpuDtype:
    best, other = sorted(seconds, key=lambda dtype: seconds[dtype])
    ratio = seconds[other] / seconds[best]
    return CpuDtype(best, f"measured on this {cpu_name()}: {ratio:.1f} times as fast as {other}")


def _key(quantised: bool) -> str:
    return f"{cpu_name()} {cpu_features()}, torch {version('torch')}, {'4-bit' if quantised else 'dense'}"


def _file() -> Path:
    return cache_folder() / "cpu-dtype.json"


def _remembered() -> dict[str, _Seconds]:
    """Return what was measured; a damaged file is only a forgotten memory."""
    try:
        return _REMEMBERED.validate_json(_file().read_bytes())
    except (OSError, ValidationError):
        return {}
