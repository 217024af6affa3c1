"""Section on duration: a rough estimate from tokens, weights, and the speed of the device.

A step costs 2 floating-point operations a weight and token forward, and 2 backward: through frozen weights only the
gradient of the input is computed, not that of the weight (a third of the usual 6, which full fine-tuning takes;
Kaplan et al. 2020, arXiv:2001.08361, section 2.1). Checkpointing computes the forward pass once more. An evaluation is
a forward pass.
Each layer with an adapter adds a fixed time, which dominates small steps (measured on SmolLM2-135M in NF4 on a CPU:
about 0.4 s per step of any size, over 210 layers). Packed trials share it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import fmean

import numpy as np

from sweeper.check import Section
from sweeper.check.length import Tokens, corners
from sweeper.check.memory import answers_per_row, compute_type, free_bytes, largest_workload, slots
from sweeper.config.evaluation import REWARD_METRICS, TASK_METRICS
from sweeper.config.search import NoPruner
from sweeper.hardware import Machine
from sweeper.models.facts import ModelFacts
from sweeper.presets.rules import corner_values
from sweeper.study.resolve import ResolvedStudy

PRUNING_SAVES = 0.4
"""Share of the training that pruning is assumed to save."""

_CPU_EFFICIENCY = 0.5  # of the speed of a plain matrix product
_CPU_LAYER_S = 2e-3
_GPU_LAYER_S = 5e-4
_LOAD_S = 15.0
_PROBE_S = 0.05
_PROBE_SIZE = 96  # small enough for one BLAS thread: with several, a busy machine would measure their synchronisation
# Dense half-precision peak of a GPU by compute capability, in TFLOP/s (NVIDIA's data sheets of A100, RTX 3090,
# RTX 4090, H100, B200, RTX 5090, and T4 and V100), and the part of it that fine-tuning with adapters reaches.
_PEAK_TFLOPS = {7.0: 112, 7.5: 65, 8.0: 312, 8.6: 71, 8.9: 165, 9.0: 989, 10.0: 2250, 12.0: 210}
_GPU_EFFICIENCY = 0.2
_UNKNOWN_TFLOPS = 60


def duration(study: ResolvedStudy, here: Machine, tokens: Mapping[str, Tokens]) -> Section:
    """Estimate the duration of one trial, averaged over the models, and of the whole search."""
    speed, basis = _speed(study, here)
    together = slots(study, *largest_workload(study, here, tokens), free_bytes(study.device, here))
    trial_s = fmean(
        trial_flops(study, model.facts, tokens[name]) / speed + _fixed_s(study, model.facts) / together
        for name, model in study.models.items()
        if model.facts is not None
    )
    config = study.config
    prunes = not isinstance(config.search.pruner, NoPruner) and not config.evaluation.objectives
    search_s = _LOAD_S + config.search.n_trials * trial_s * (1 - PRUNING_SAVES * prunes)
    bounded = min(search_s, config.search.timeout or search_s)
    assumed = f", assuming that pruning saves {PRUNING_SAVES:.0%}" if prunes else ""
    lines = [
        f"roughly {_time(trial_s)} per trial, {_time(bounded)} for {config.search.n_trials} trials{assumed} ({basis}); "
        "expect anything from half to double that",
        "the comparison on the test split is not included",
    ]
    if bounded < search_s:
        lines.append(f"search.timeout ends it; without that, roughly {_time(search_s)}")
    if config.evaluation.metric in (*TASK_METRICS, *REWARD_METRICS):
        lines.append(f"{config.evaluation.metric} needs generated text at every evaluation, which is not included")
    if config.technique.rows == "prompts":
        lines.append(f"{config.technique.kind} generates text at every step, which at least doubles the time")
    figures = {"trial_s": trial_s, "search_s": bounded, "gflops": speed / 1e9, "basis": basis}
    return Section("duration", tuple(lines), figures=figures)


def trial_flops(study: ResolvedStudy, facts: ModelFacts, tokens: Tokens) -> float:
    """Return the floating-point operations of an unpruned trial, evaluations included."""
    epochs = corner_values(study.space.space, "epochs")
    config, technique = study.config, study.config.technique
    adapters = list(config.variants(study.space.space))
    again = any(technique.checkpoints(adapter, study.device) for adapter in adapters)
    per_weight = 4 + 2 * any(adapter.is_full for adapter in adapters) + 2 * again
    extra = max(adapter.extra_tokens for adapter in adapters)
    per_row = tokens.mean + extra
    if technique.rows != "answers":
        per_row = (technique.tokens_per_row(round(tokens.mean)) + extra) * answers_per_row(study)
    trained = len(study.splits.train) * per_row * (min(epochs) + max(epochs)) / 2
    evaluated = len(study.splits.validation) * (tokens.mean + extra) * config.evaluation.points
    return float(facts.parameters * (trained * per_weight + evaluated * 2))


def _fixed_s(study: ResolvedStudy, facts: ModelFacts) -> float:
    """Return the seconds of a trial that do not depend on the size of its steps."""
    layer_s = _CPU_LAYER_S if study.device == "cpu" else _GPU_LAYER_S
    steps = fmean(corner.steps for corner in corners(study.space.space, len(study.splits.train)))
    return steps * len(facts.linear) * layer_s


def _speed(study: ResolvedStudy, here: Machine) -> tuple[float, str]:
    """Return the floating-point operations per second in training, and the source of that number."""
    if study.device == "cpu":
        peak = probe_flops()
        basis = f"from a probe of the CPU just now: {here.cpus} x {peak / 1e9:.0f} GFLOP/s"
        return here.cpus * peak * _CPU_EFFICIENCY, basis
    gpu = here.gpus[int(study.device.partition(":")[2] or 0)]
    peak = 1e12 * _PEAK_TFLOPS.get(gpu.capability or 0.0, _UNKNOWN_TFLOPS)
    if "float32" in {compute_type(study.config, model, study.device, here) for model in study.config.models.values()}:
        peak /= 8  # without tensor cores
    return peak * _GPU_EFFICIENCY, f"assumed for {gpu.name}: {_GPU_EFFICIENCY:.0%} of {peak / 1e12:.0f} TFLOP/s"


def probe_flops() -> float:
    """Measure the float32 operations per second of one processor, in about 50 ms."""
    matrix = np.ones((_PROBE_SIZE, _PROBE_SIZE), dtype=np.float32)
    matrix @ matrix  # warm-up
    started, products = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < _PROBE_S or products == 0:
        matrix @ matrix
        products += 1
    return float(products * 2 * _PROBE_SIZE**3 / elapsed)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
