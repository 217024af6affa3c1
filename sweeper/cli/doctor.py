"""``sweeper doctor``: what this machine has, and what each missing part would give; or what of a study is wrong."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Annotated

import typer
from packaging.requirements import Requirement

from sweeper.cli.optional_packages import Finding, optional_parts
from sweeper.cli.output import emit_json, progress, safe, say
from sweeper.config.pipeline import STAGES, stage_name
from sweeper.errors import UserError
from sweeper.hardware import Machine, machine
from sweeper.models import hub
from sweeper.paths import Home, cache_folder
from sweeper.training.library_logging import quieten

_GB = 1e9
_HUB_TIMEOUT_S = 3.0
_LEAST_DISK_GB = 5
_NEEDED = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets", "optuna", "sqlalchemy")


def doctor(
    study: Annotated[str | None, typer.Argument(help="Examine this study instead.", show_default=False)] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended without a guess.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Say what this machine has, and what the missing parts would give; or what of a study does not agree.

    Of a STUDY it compares the database, the search and the files: every trial, checksum, lease, split, base model and
    registered version. It changes nothing without --repair, and mends nothing by a guess. The exit code is 1 if
    something keeps sweeper from working, or if something of the study does not agree.
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
    for each in found if not as_json else ():
        state = f"[green]mended[/]: {safe(each.mended)}" if each.mended else f"[yellow]{safe(each.advice)}[/]"
        say(f"[bold]{safe(each.kind)}[/]: {safe(each.text)}\n  {state}")
    if not as_json and not found:
        say(f"study {safe(name)}: database, search and files agree")
    if not as_json and any(each.mendable for each in left):
        say(f"`sweeper doctor {safe(name)} --repair` mends {sum(each.mendable for each in left)} of {len(left)}")
    if left:
        raise typer.Exit(1)


def examine() -> list[Finding]:
    """Look at everything; may take some seconds, for PyTorch is imported."""
    here = machine()
    return [
        *_hardware(here),
        *_packages(),
        *_torch(here),
        _four_bit(),
        *optional_parts(here),
        _hub(),
        *_folders(),
    ]


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
        yield Finding("GPU", "missing", "none that the driver shows", advice)


def _packages() -> Iterator[Finding]:
    """Compare the installed versions with those that sweeper was tested with."""
    try:
        tested = {found.name: found.specifier for found in map(Requirement, requires("sweeper") or ())}
    except PackageNotFoundError:
        tested = {}
        yield Finding("sweeper", "note", "runs from a folder, not installed, so tested versions are not known")
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
            yield Finding(package, "note", f"{found}, which is outside the tested versions", advice)


def _torch(here: Machine) -> Iterator[Finding]:
    """Say what PyTorch sees, which may be less than what the driver shows."""
    try:
        import torch
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
        yield Finding("PyTorch", "ok", f"on the CPU, {torch.get_num_threads()} threads")


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
        return Finding("Hugging Face Hub", "note", "switched off by HF_HUB_OFFLINE", "only models that are here work")
    from huggingface_hub import HfApi

    try:
        HfApi().model_info("HuggingFaceTB/SmolLM2-135M-Instruct", timeout=_HUB_TIMEOUT_S)
    except Exception as error:  # the Hub's client raises its own errors, its HTTP library's and the system's
        advice = "models and data sets must be local folders; smollm2-135m also comes from a package index"
        return Finding("Hugging Face Hub", "note", f"cannot be reached: {_line(error)}", advice)
    return Finding("Hugging Face Hub", "ok", "reached")


def _folders() -> Iterator[Finding]:
    for part, folder in (("SWEEPER_HOME", Home.current().folder), ("SWEEPER_CACHE", cache_folder())):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(there).free / _GB
        if not there.is_dir() or not os.access(there, os.W_OK):
            yield Finding(part, "problem", f"{folder} cannot be written", f"set {part} to a folder of your own")
        elif free < _LEAST_DISK_GB:
            yield Finding(part, "note", f"{folder}: only {free:.1f} GB free", "models and adapters need room")
        else:
            yield Finding(part, "ok", f"{folder}, {free:.0f} GB free")


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
