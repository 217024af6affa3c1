"""``sweeper doctor``: what this machine has and lacks, or what is inconsistent in a study."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Annotated, Literal, get_args

import typer
from packaging.requirements import Requirement

from sweeper.cli.output import Json, emit_json, progress, safe, say
from sweeper.compatibility import UNSLOTH_INSTALL, attention_refusal, best_attention, compiler_refusal
from sweeper.config.model import Attention
from sweeper.config.pipeline import STAGES, stage_name
from sweeper.errors import UserError
from sweeper.hardware import Machine, machine
from sweeper.models import hub
from sweeper.paths import Home, cache_folder
from sweeper.training.cpu_dtype import pick
from sweeper.training.library_logging import quieten

_GB = 1e9
_HUB_TIMEOUT_S = 3.0
_LEAST_DISK_GB = 5
_NEEDED = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets", "optuna", "sqlalchemy")


@dataclass(frozen=True)
class Finding:
    """One thing that was examined.

    Attributes:
        part: What was examined.
        state: ``missing`` is an optional part; ``note`` is worth knowing; ``problem`` keeps sweeper from working.
        text: What was found.
        advice: What to do, or what the part adds and how to install it.
    """

    part: str
    state: Literal["ok", "missing", "note", "problem"]
    text: str
    advice: str | None = None


_OPTIONAL = (
    ("liger-kernel", "less memory on long rows (backend: {liger: true})", "pip install 'sweeper[liger]'", True),
    ("deepspeed", "trials on several GPUs (backend: deepspeed)", "pip install 'sweeper[deepspeed]'", False),
    ("unsloth", "its own loader and kernels (backend: unsloth)", UNSLOTH_INSTALL, True),
    ("ray", "trials on a cluster (executor: ray)", "pip install 'sweeper[ray]'", False),
    (
        "fsspec",
        "cluster nodes with their own homes (artifacts: s3://...)",
        "pip install 'sweeper[object-store]'",
        False,
    ),
    ("optuna-dashboard", "Optuna's own charts", "pip install 'sweeper[dashboard]'", False),
)
"""Optional packages, looked up by name and not imported: what each adds, how to install it, if it needs CUDA."""


def doctor(
    study: Annotated[
        str | None, typer.Argument(help="Examine this study, not the machine.", show_default=False)
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Repair what can be repaired without guessing.")] = False,
    as_json: Json = False,
) -> None:
    """Check this machine, or find inconsistencies in a study.

    Without a STUDY it lists hardware and packages, and what missing ones would add. With one it compares database,
    search and files: every trial, checksum, lease, split, base model and registered version. It changes nothing without
    --repair. The exit code is 1 if something keeps sweeper from working, or if the study is inconsistent.
    """
    if study is not None:
        _examine_study(study, repair, as_json)
        return
    if repair:
        raise UserError("--repair needs the name of a study; `sweeper status` lists them")
    findings = examine()
    if as_json:
        emit_json(findings)
    else:
        for finding in findings:
            _show(finding)
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)


def _examine_study(name: str, repair: bool, as_json: bool) -> None:
    from sweeper.upkeep.doctor import Diagnosis, diagnose  # imports optuna

    home = Home.current()
    stages = [stage_name(name, stage) for stage in STAGES] if home.study(name).pipeline.is_file() else [name]
    found: list[Diagnosis] = []
    with progress() as on_progress:
        for stage in stages:
            if stage == name or home.study(stage).folder.is_dir():
                found += diagnose(home, stage, repair=repair, on_progress=on_progress)
    left = [each for each in found if each.mended is None]
    if as_json:
        emit_json({"study": name, "healthy": not left, "findings": found})
    else:
        for each in found:
            state = f"[green]repaired[/]: {safe(each.mended)}" if each.mended else f"[yellow]{safe(each.advice)}[/]"
            say(f"[bold]{safe(each.kind)}[/]: {safe(each.text)}\n  {state}")
        if not found:
            say(f"study {safe(name)}: database, search and files are consistent")
        if mendable := sum(each.mendable for each in left):
            say(f"`sweeper doctor {safe(name)} --repair` repairs {mendable} of {len(left)}")
    if left:
        raise typer.Exit(1)


def examine() -> list[Finding]:
    """Examine the machine; takes some seconds, because PyTorch is imported."""
    here = machine()
    return [*_hardware(here), *_packages(), *_torch(here), _four_bit(), *_optional_parts(here), _hub(), *_folders()]


def _show(finding: Finding) -> None:
    color = {"ok": "green", "missing": "dim", "note": "yellow", "problem": "bold red"}[finding.state]
    say(f"[{color}]{finding.state:>7}[/]  [bold]{safe(finding.part)}[/]: {safe(finding.text)}")
    if finding.advice:
        say(f"         {safe(finding.advice)}")


def _hardware(here: Machine) -> Iterator[Finding]:
    yield Finding("system", "ok", f"{platform.platform()}, Python {platform.python_version()}")
    yield Finding("processors", "ok", f"{here.cpus} usable")
    yield Finding("memory", "ok", f"{here.free_bytes / _GB:.1f} of {here.total_bytes / _GB:.1f} GB free")
    for index, gpu in enumerate(here.gpus):
        size = "unknown size" if gpu.total_bytes is None else f"{gpu.total_bytes / _GB:.0f} GB"
        yield Finding(f"GPU {index}", "ok", f"{gpu.name}, {size}, compute capability {gpu.capability or 'unknown'}")
    if not here.gpus:
        advice = "training runs on the CPU: fine for models of up to a few hundred million weights"
        yield Finding("GPU", "missing", "none found", advice)


def _packages() -> Iterator[Finding]:
    """Compare the installed versions with those that sweeper was tested with."""
    try:
        tested = {found.name: found.specifier for found in map(Requirement, requires("sweeper") or ())}
    except PackageNotFoundError:
        tested = {}
        yield Finding("sweeper", "note", "runs from a folder, not installed, so the tested versions are unknown")
    for package in _NEEDED:
        bounds = tested.get(package)
        try:
            found = version(package)
        except PackageNotFoundError:
            yield Finding(package, "problem", "not installed", f"pip install '{package}{bounds or ''}'")
            continue
        if bounds is None or bounds.contains(found, prereleases=True):
            yield Finding(package, "ok", found)
        else:
            advice = f"tested with {bounds}: pip install '{package}{bounds}'"
            yield Finding(package, "note", f"{found}, outside the tested versions", advice)


def _torch(here: Machine) -> Iterator[Finding]:
    """Report what PyTorch sees, which may be less than what the driver shows."""
    try:
        import torch

        from sweeper.training.device import use_free_cores
    except Exception as error:  # a broken installation fails in many ways
        yield Finding("PyTorch", "problem", f"cannot be imported: {_line(error)}", "install torch again")
        return
    if torch.cuda.is_available():
        bf16 = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16, so float16 is used"
        yield Finding("PyTorch", "ok", f"CUDA {torch.version.cuda}, {torch.cuda.device_count()} devices, {bf16}")
    elif here.gpus:
        advice = "install the torch wheel for your CUDA version: pytorch.org/get-started/locally"
        yield Finding("PyTorch", "note", "sees no CUDA device although the driver shows a GPU", advice)
    else:
        threads = use_free_cores() or f"{torch.get_num_threads()} threads"
        yield Finding("PyTorch", "ok", f"on the CPU: {threads}")
        picked = pick(quantised=False)
        yield Finding("dtype: auto", "ok", f"{picked.dtype}: {picked.reason}")


def _four_bit() -> Finding:
    """Quantise a small layer to NF4 and take a gradient through it, on the device that training would use."""
    try:
        import torch

        quieten()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        error = _quantisation_error(device)
    except Exception as fault:  # bitsandbytes fails in many ways where its library does not fit the device
        advice = "adapter: {kind: lora} works without it; or pip install --force-reinstall bitsandbytes"
        return Finding("4-bit", "problem", f"bitsandbytes cannot quantise here: {_line(fault)}", advice)
    if error > 0.2:  # NF4 of normal weights has about 0.1
        return Finding("4-bit", "problem", f"NF4 on {device} is wrong by {error:.0%}", "use adapter: {kind: lora}")
    return Finding("4-bit", "ok", f"NF4 with a gradient through it works on {device} (error {error:.1%})")


def _quantisation_error(device: str) -> float:
    """Return the relative error that NF4 makes in the output and the input gradient of one layer, the larger."""
    import torch
    from bitsandbytes.nn import Linear4bit

    torch.manual_seed(0)
    dense = torch.nn.Linear(128, 128, bias=False)
    packed = Linear4bit(128, 128, bias=False, compute_dtype=torch.float32, quant_type="nf4")
    packed.load_state_dict(dense.state_dict())
    packed, dense = packed.to(device), dense.to(device)
    inputs = torch.randn(8, 128, device=device)
    ours, theirs = (inputs.clone().requires_grad_() for _ in range(2))
    outputs, expected = packed(ours), dense(theirs)
    outputs.sum().backward()
    expected.sum().backward()
    if ours.grad is None or theirs.grad is None:
        raise RuntimeError("no gradient comes through a 4-bit layer")
    pairs = ((outputs.detach(), expected.detach()), (ours.grad, theirs.grad))
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


def _hub() -> Finding:
    if hub.switched_off():
        return Finding("Hugging Face Hub", "note", "switched off by HF_HUB_OFFLINE", "only models on this machine work")
    from huggingface_hub import HfApi

    try:
        HfApi().model_info("HuggingFaceTB/SmolLM2-135M-Instruct", timeout=_HUB_TIMEOUT_S)
    except Exception as error:  # the Hub's client raises its own errors, its HTTP library's and the system's
        advice = "models and data sets must be local; smollm2-135m also comes from a package index"
        return Finding("Hugging Face Hub", "note", f"cannot be reached: {_line(error)}", advice)
    return Finding("Hugging Face Hub", "ok", "reached")


def _folders() -> Iterator[Finding]:
    for part, folder in (("SWEEPER_HOME", Home.current().folder), ("SWEEPER_CACHE", cache_folder())):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(there).free / _GB
        if not there.is_dir() or not os.access(there, os.W_OK):
            yield Finding(part, "problem", f"{folder} is not writable", f"set {part} to a folder of your own")
        elif free < _LEAST_DISK_GB:
            yield Finding(part, "note", f"{folder}: only {free:.1f} GB free", "models and adapters need room")
        else:
            yield Finding(part, "ok", f"{folder}, {free:.0f} GB free")


def _optional_parts(here: Machine) -> Iterator[Finding]:
    """List the attentions and backends that run here, and what the others need."""
    yield from _attentions(here)
    yield Finding("backend fsdp", "ok", f"{len(here.gpus)} GPUs; part of PyTorch, nothing to install")
    obstacle = compiler_refusal()
    text = "found a C++ compiler, for backend: {compile: true}" if obstacle is None else obstacle
    yield Finding("backend compile", "ok" if obstacle is None else "missing", text)
    for package, adds, install, needs_cuda in _OPTIONAL:
        try:
            yield Finding(package, "ok", version(package))
        except PackageNotFoundError:
            where = " (needs a CUDA device)" if needs_cuda and not here.gpus else ""
            yield Finding(package, "missing", "not installed", f"adds {adds}{where}: {install}")


def _attentions(here: Machine) -> Iterator[Finding]:
    device = "cuda:0" if here.gpus else "cpu"
    capability = here.gpus[0].capability if here.gpus else None
    dtype = "bfloat16" if here.gpus else "float32"
    best = best_attention(device, dtype, capability)
    for kind in get_args(Attention)[1:]:
        reason = attention_refusal(kind, device, dtype, capability)
        text = f"runs on {device}{', and auto chooses it' * (kind == best)}" if reason is None else reason
        yield Finding(f"attention {kind}", "missing" if reason else "ok", text.removeprefix("which "))


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
