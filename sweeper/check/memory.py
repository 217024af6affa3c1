"""Section on memory: an estimate for the largest configuration, and the device's free memory."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from sweeper.check import Section
from sweeper.check.length import Tokens
from sweeper.compatibility import BF16_CAPABILITY
from sweeper.config.adapter import AnyAdapter
from sweeper.config.backend import processes, spreads_weights
from sweeper.config.choice import variants
from sweeper.config.executor import PackingExecutorConfig, PerGpuExecutorConfig
from sweeper.config.model import ModelConfig
from sweeper.config.space import ADAPTER, MODEL, space_of
from sweeper.config.study import StudyConfig
from sweeper.hardware import Machine, gpus, pick_devices
from sweeper.models.facts import ModelFacts
from sweeper.models.memory import Workload, estimate, largest_micro_batch
from sweeper.packing.obstacles import obstacle_in_study
from sweeper.packing.planning import plan
from sweeper.presets.rules import corner_values
from sweeper.study.resolve import ResolvedStudy
from sweeper.training.cpu_dtype import is_measured, is_quantised, known

_GIB = 1 << 30
_UNKNOWN_MEMORY = 1 << 50


def memory(study: ResolvedStudy, here: Machine, tokens: Mapping[str, Tokens]) -> Section:
    """Estimate the memory of the largest configuration, and the largest micro-batch."""
    facts, work = largest_workload(study, here, tokens)
    together = _processes(study, here)
    batch = ceil(max(corner_values(study.space.space, "batch_size")) * answers_per_row(study) / together)
    free = free_bytes(study.device, here)
    if free is not None and study.device == "cpu":
        free //= together
    asked = study.config.executor.micro_batch
    rows = asked if isinstance(asked, int) else None
    if rows is None and free is not None:
        rows = largest_micro_batch(facts, work, batch_size=batch, free_bytes=free, loaded=False)
    need = estimate(facts, work, max(1, rows or 1))
    figures = {**vars(need), "total": need.total, "micro_batch": rows, "free": free, "dtype": work.dtype}
    largest = f"{_adapter_size(work)}, batch size {batch}, {work.tokens_per_row:,} tokens a row, {work.dtype}"
    trained = "copy to train" if work.adapter.is_full else "adapter"
    where = "an unknown amount" if free is None else _size(free)
    lines = (
        f"about {_size(need.total)} at micro-batch {max(1, rows or 1)} ({largest}); {study.device} has {where} free",
        f"of which base {_size(need.base)}, activations {_size(need.activations)}, logits {_size(need.logits)}, "
        f"{trained} with optimizer {_size(need.adapter + need.gradients + need.optimizer)}",
        *_packing(study, facts, work, free),
    )
    return Section("memory", lines, tuple(_warnings(need.total, free, rows)), figures)


def answers_per_row(study: ResolvedStudy) -> int:
    """Return the most rows in the model per row of the data: of a prompt, every answer to it."""
    searched = study.space.space.get("num_generations")
    return int(max(searched.corners())) if searched is not None else study.config.technique.generations


def slots(study: ResolvedStudy, facts: ModelFacts, work: Workload, free: int | None) -> int:
    """Return the planned number of concurrent trials per worker."""
    executor, config = study.config.executor, study.config
    if not isinstance(executor, PackingExecutorConfig) or obstacle_in_study(config, study.space.space) is not None:
        return 1
    asked = None if executor.slots == "auto" else executor.slots
    room = _UNKNOWN_MEMORY if free is None else free - estimate(facts, work, 1).base
    trials = ceil(config.search.n_trials / len(workers(study)))
    return plan(facts, work, slots=asked, n_trials=trials, free_bytes=room).slots


def workers(study: ResolvedStudy) -> tuple[str, ...]:
    """Return the device of each worker; of a cluster, whose workers are not known yet, one device."""
    executor = study.config.executor
    if isinstance(executor, PerGpuExecutorConfig):
        return pick_devices(executor.devices, executor.device, gpus())
    return (study.device,)


def _packing(study: ResolvedStudy, facts: ModelFacts, work: Workload, free: int | None) -> tuple[str, ...]:
    """Describe the number of trials that share the base model, or the obstacle."""
    if not isinstance(study.config.executor, PackingExecutorConfig):
        return ()
    obstacle = obstacle_in_study(study.config, study.space.space)
    if obstacle is not None:
        return (f"trials run one at a time: {obstacle}",)
    together = slots(study, facts, work, free)
    each = {"per_gpu": f", in each of the workers on {', '.join(workers(study))}", "ray": ", in each worker"}
    where = each.get(study.config.executor.kind, "")
    return (f"up to {together} trial{'s' * (together > 1)} at a time on one base model{where}",)


def largest_workload(study: ResolvedStudy, here: Machine, tokens: Mapping[str, Tokens]) -> tuple[ModelFacts, Workload]:
    """Return the base model and the configuration that take the most memory."""
    works = [
        (model.facts, _workload(study, here, name, label, tokens[name]))
        for name, model in study.models.items()
        for label in study.config.adapters
        if model.facts is not None
    ]
    return max(works, key=lambda found: estimate(found[0], found[1], micro_batch=1).total)


def _workload(study: ResolvedStudy, here: Machine, name: str, label: str, tokens: Tokens) -> Workload:
    """Return the largest configuration of one base model and one adapter."""
    config, model = study.config, study.config.models[name]
    space = space_of(study.space.space, {MODEL: name, ADAPTER: label})
    targets = space["target_modules"].corners() if "target_modules" in space else ("all-linear",)
    return Workload(
        adapter=max(variants(config.adapters[label].adapter, space), key=_weight),
        lora_rank=int(max(corner_values(space, "lora_rank"))),
        target_modules="all-linear" if "all-linear" in targets else max(targets, key=len),
        tokens_per_row=config.technique.tokens_per_row(tokens.longest),
        dtype=compute_type(config, model, study.device, here),
        gradient_checkpointing=config.technique.checkpoints(config.adapters[label].adapter, study.device),
        attention_matrix=model.attention == "eager",
        spread_over=_processes(study, here) if spreads_weights(config.backend) else 1,
    )


def _processes(study: ResolvedStudy, here: Machine) -> int:
    return processes(study.config.backend, 0 if study.device == "cpu" else len(here.gpus))


def _weight(adapter: AnyAdapter) -> tuple[int, ...]:
    """Return a sort key for an adapter's variants by memory; those that change the base keep a copy of it."""
    sizes = (getattr(adapter, name, None) or 0 for name in ("projection", "projection_size", "encoder_size", "dora"))
    return adapter.changes_base, adapter.extra_tokens, *sizes


def _adapter_size(work: Workload) -> str:
    if "lora_rank" in work.adapter.hyperparameters:
        return f"rank {work.lora_rank}"
    tokens = work.adapter.extra_tokens
    return f"{tokens} virtual tokens" if tokens else work.adapter.kind


def compute_type(config: StudyConfig, model: ModelConfig, device: str, here: Machine) -> str:
    """Return the number type of training on the device; float32 on a CPU that was not measured yet."""
    if model.dtype != "auto":
        return model.dtype
    if device == "cpu":
        found = known(quantised=is_quantised(config)) if is_measured(config) else None
        return "float32" if found is None else found.dtype
    capability = here.gpus[_index(device)].capability
    return "bfloat16" if capability is None or capability >= BF16_CAPABILITY else "float16"


def free_bytes(device: str, here: Machine) -> int | None:
    """Return the free memory of a device; None if unknown."""
    return here.free_bytes if device == "cpu" else here.gpus[_index(device)].free_bytes


def _index(device: str) -> int:
    return int(device.partition(":")[2] or 0)


def _warnings(need: int, free: int | None, rows: int | None) -> list[str]:
    if free is None or rows is None or (rows > 0 and need <= free):
        return []
    fits = "at micro-batch 1" if rows == 0 else f"at the study's micro-batch of {rows}"
    return [
        f"the largest configuration may not fit even {fits}: about {_size(need)} needed, {_size(free)} free; such "
        "trials end as infeasible. Lower technique.max_length or the rank, or use a smaller model"
    ]


def _size(count: int) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB / 10 else f"{count / (1 << 20):.0f} MiB"
