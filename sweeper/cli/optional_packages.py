"""The optional parts of ``sweeper doctor``: which attentions and backends run here, and what the others need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, get_args

from sweeper.compatibility import UNSLOTH_INSTALL, attention_refusal, best_attention, compiler_refusal
from sweeper.config.model import Attention
from sweeper.hardware import Machine

State = Literal["ok", "missing", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        part: What was looked at.
        state: ``missing`` is an optional part; ``note`` is worth knowing; ``problem`` keeps sweeper from working.
        text: What was found.
        advice: What the part would give and how to get it, or what to do.
    """

    part: str
    state: State
    text: str
    advice: str | None = None


@dataclass(frozen=True)
class Optional:
    """A part that sweeper works without.

    Attributes:
        package: Name on the package index.
        gives: What it would give.
        install: How to get it.
        cuda: Whether it needs a CUDA device.
    """

    package: str
    gives: str
    install: str
    cuda: bool = True


OPTIONAL = (
    Optional("liger-kernel", "less memory on long rows, with backend: {liger: true}", "pip install 'sweeper[liger]'"),
    Optional(
        "deepspeed", "trials on several GPUs, with backend: deepspeed", "pip install 'sweeper[deepspeed]'", cuda=False
    ),
    Optional("unsloth", "its own loader and kernels, with backend: unsloth", UNSLOTH_INSTALL),
    Optional("ray", "trials on a cluster, with executor: ray", "pip install 'sweeper[ray]'", cuda=False),
    Optional(
        "fsspec",
        "nodes of a cluster with homes of their own, with executor: {artifacts: s3://...}",
        "pip install 'sweeper[object-store]'",
        cuda=False,
    ),
    Optional("optuna-dashboard", "Optuna's own charts", "pip install 'sweeper[dashboard]'", cuda=False),
)
"""Optional parts, looked for by name and not imported."""


def optional_parts(here: Machine) -> Iterator[Finding]:
    """Say which attentions and backends run here, and what the others need."""
    yield from _attentions(here)
    yield Finding("backend fsdp", "ok", f"{len(here.gpus)} GPUs; part of PyTorch, nothing to install")
    obstacle = compiler_refusal()
    text = "a C++ compiler is here, for backend: {compile: true}" if obstacle is None else obstacle
    yield Finding("backend compile", "ok" if obstacle is None else "missing", text)
    for part in OPTIONAL:
        try:
            yield Finding(part.package, "ok", version(part.package))
        except PackageNotFoundError:
            where = " (needs a CUDA device, which is not here)" if part.cuda and not here.gpus else ""
            yield Finding(part.package, "missing", "not installed", f"would give {part.gives}{where}: {part.install}")


def _attentions(here: Machine) -> Iterator[Finding]:
    device = "cuda:0" if here.gpus else "cpu"
    capability = here.gpus[0].capability if here.gpus else None
    dtype = "bfloat16" if here.gpus else "float32"
    best = best_attention(device, dtype, capability)
    for kind in get_args(Attention)[1:]:
        reason = attention_refusal(kind, device, dtype, capability)
        text = f"runs on {device}{', and is what auto takes' * (kind == best)}" if reason is None else reason
        yield Finding(f"attention {kind}", "missing" if reason else "ok", text.removeprefix("which "))
