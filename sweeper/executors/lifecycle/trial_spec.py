"""From what the sampler chose to what a trial is asked to do."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sweeper.config.backend import FSDP, Backend, DeepSpeed, processes
from sweeper.config.choice import pick
from sweeper.config.parameters import PARAMETERS, Hyperparameters, ParameterValue, alpha_value, steps, warmup
from sweeper.config.space import ADAPTER, MODEL, definite
from sweeper.config.trial import TrialSpec
from sweeper.executors.context import StudyContext
from sweeper.hardware import gpus
from sweeper.search.candidate import Candidate


def hyperparameters(chosen: Mapping[str, ParameterValue], options: Collection[str] = frozenset()) -> Hyperparameters:
    """Make every choice definite: defaults filled in, alpha a number, one kind of warmup, TRL's own fields apart.

    A parameter of the chosen alternative alone (``qlora.learning_rate``) gets its bare name.

    Args:
        chosen: What the sampler chose.
        options: Names of the adapter's options, which become part of the adapter instead.
    """
    chosen = definite(chosen)
    values: dict[str, ParameterValue] = {name: parameter.default for name, parameter in PARAMETERS.items()}
    values |= {name: value for name, value in chosen.items() if name in PARAMETERS}
    if values["warmup_steps"] is not None:
        values["warmup_ratio"] = None
    for name, parameter in PARAMETERS.items():
        if parameter.type == "int" and values[name] is not None:
            values[name] = int(values[name])  # type: ignore[arg-type]
    rank, alpha = values["lora_rank"], values["lora_alpha"]
    assert isinstance(rank, int) and isinstance(alpha, int | float | str)
    values["lora_alpha"] = alpha_value(alpha, rank)
    further = {name: value for name, value in chosen.items() if name not in PARAMETERS and name not in options}
    return Hyperparameters.model_validate({**values, "trl": further})


def specification(context: StudyContext, candidate: Candidate) -> TrialSpec:
    """Return the whole specification of the trial that a candidate asks for."""
    config, chosen = context.config, candidate.parameters
    model, adapter = pick(context.models, chosen.get(MODEL)), pick(config.adapters, chosen.get(ADAPTER)).adapter
    return TrialSpec(
        study=config.name,
        number=candidate.number,
        seed=candidate.seed,
        model=model.config,
        model_folder=model.folder,
        technique=config.technique,
        adapter=adapter.with_options(definite(chosen)),
        train=context.data.train,
        validation=context.data.validation,
        hyperparameters=hyperparameters(chosen, adapter.options()),
        evaluation=config.evaluation,
        backend=_definite(config.backend, context.device),
        device=context.device,
        micro_batch=None if config.executor.micro_batch == "auto" else config.executor.micro_batch,
        folder=context.paths.trial(candidate.number).folder,
        reward_sources=context.reward_sources,
        initial_adapter=None if candidate.initial is None else context.paths.trial(candidate.initial).adapter,
    )


def _definite(backend: Backend, device: str) -> Backend:
    """Return a backend whose number of processes is a number."""
    if not isinstance(backend, DeepSpeed | FSDP):
        return backend
    return backend.model_copy(update={"processes": processes(backend, 0 if device == "cpu" else len(gpus()))})


def planned_steps(context: StudyContext, spec: TrialSpec) -> tuple[int, int]:
    """Return the optimizer steps of a trial, and how many of them are warmup."""
    chosen = spec.hyperparameters
    total = steps(context.train_rows, chosen.batch_size, chosen.epochs)
    return total, warmup(total, chosen.warmup_steps, chosen.warmup_ratio)
