"""Reinforcement learning from human feedback: one study file with three stages, each a study.

SFT trains a model that answers, a reward model learns human rankings of answers, and the policy is optimised against
that reward model (Ouyang et al. 2022, arXiv:2203.02155, section 3.1; the policy there by PPO, for
which the current TRL has no trainer, here by GRPO or RLOO).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from sweeper.config.base import kind_of
from sweeper.config.study import StudyConfig, valid_name
from sweeper.config.technique import TECHNIQUES, Policy
from sweeper.config.yaml_source import Path_, YamlSource
from sweeper.errors import Fault
from sweeper.paths import StudyPaths

KIND = "rlhf"

STAGES: dict[str, tuple[str, ...]] = {
    "sft": ("sft",),
    "reward": ("reward",),
    "policy": tuple(kind for kind, of in TECHNIQUES.items() if issubclass(of, Policy)),
}
"""The stages in order, each with its allowed techniques, the default first."""

_SHARED = ("model", "adapter", "executor", "storage", "keep", "backend", "seed")
_OWN = ("data", "technique", "adapter", "search", "evaluation", "executor", "keep", "backend", "seed")
_POLICY_METRICS = ["mean_reward", "win_rate", "kl"]

STARTED_FROM = "adapter:"
"""Prefix of a base model that is a registered adapter merged into its base: ``adapter:NAME@VERSION``."""


def is_pipeline(data: Any) -> bool:
    """Return whether parsed YAML is a pipeline."""
    technique = data.get("technique") if isinstance(data, dict) else None
    return KIND in (technique, kind_of(technique))


def pipeline_faults(source: YamlSource) -> Iterator[Fault]:
    """Yield faults in the form of a pipeline; its stages are checked as studies afterwards."""
    yield from _shared_faults(source)
    yield from _name_faults(source)
    stages = source.data.get("stages")
    if not isinstance(stages, dict):
        yield source.fault(("stages",), f"must hold {', '.join(STAGES)}: each a study's data, technique, search, ...")
        return
    for stage in STAGES:
        if not isinstance(stages.get(stage), dict):
            yield source.fault(("stages", stage), "is required: a mapping with its data, and any parts that differ")
    for stage, part in stages.items():
        if stage not in STAGES:
            yield source.fault(("stages", stage), f"unknown stage; they are {', '.join(STAGES)}")
        elif isinstance(part, dict):
            yield from _stage_faults(source, stage, part)


def connection_faults(stages: Mapping[str, StudyConfig], source: YamlSource) -> Iterator[Fault]:
    """Yield faults that would keep a stage from starting from the result of an earlier one."""
    own = "adapter" in source.data["stages"]["sft"]
    path: Path_ = ("stages", "sft", "adapter") if own else ("adapter",)
    for label, alternative in stages["sft"].adapters.items():
        if alternative.adapter.is_prompt_learning:
            message = f"{label} cannot be merged into the model that later stages start from; use lora or qlora"
            yield source.fault(path, message)


def stage_source(source: YamlSource, stage: str) -> YamlSource:
    """Return a stage as the source of a study: the shared parts, overridden by its own."""
    data, part = source.data, source.data["stages"][stage]
    shared = {key: data[key] for key in _SHARED if key in data}
    study = {**shared, **part, "name": stage_name(data["name"], stage)}
    study.setdefault("technique", STAGES[stage][0])
    if stage == "policy":
        study["technique"] = _with_reward(study["technique"], stage_name(data["name"], "reward"))
        evaluation = study.get("evaluation", {})
        if isinstance(evaluation, dict):
            study["evaluation"] = {"metrics": _POLICY_METRICS, **evaluation}
    lines = {path: line for path, line in source.lines.items() if not path or path[0] in (*shared, "name")}
    own = {path[2:]: line for path, line in source.lines.items() if path[:2] == ("stages", stage)}
    return replace(source, data=study, lines=lines | own)


def stage_name(name: Any, stage: str) -> str:
    """Return the name of a stage's study and adapter."""
    return f"{name}-{stage}"


def pipeline_of(study: StudyPaths) -> str | None:
    """Return the name of the pipeline that a stored study is a stage of, if any."""
    name = study.folder.name
    for stage in STAGES:
        whole = name.removesuffix(stage_name("", stage))
        if whole and stage_name(whole, stage) == name and StudyPaths(study.folder.with_name(whole)).pipeline.is_file():
            return whole
    return None


def name_to_resume(study: StudyPaths) -> str:
    """Return the name under which to resume a stored study: of a stage the pipeline's, or later stages never run."""
    return pipeline_of(study) or study.folder.name


def _shared_faults(source: YamlSource) -> Iterator[Fault]:
    data = source.data
    known = ("name", "technique", "stages", *_SHARED)
    for key in data:
        if key not in known:
            yield source.fault((key,), f"unknown key of an {KIND} study; allowed are {', '.join(sorted(known))}")
    for key in data["technique"] if isinstance(data["technique"], dict) else ():
        if key != "kind":
            yield source.fault(("technique", key), "belongs to a stage; name it under stages.STAGE.technique")
    if isinstance(data.get("model"), dict) and "choice" in data["model"]:
        message = "the stages share one model; find the best one first, in a separate study"
        yield source.fault(("model", "choice"), message)


def _name_faults(source: YamlSource) -> Iterator[Fault]:
    name = source.data.get("name")
    if "name" not in source.data:
        yield source.fault(("name",), "is required")
    elif not isinstance(name, str):
        yield source.fault(("name",), f"must be text; found {name!r}")
    else:
        try:
            valid_name(name)
            valid_name(stage_name(name, max(STAGES, key=len)))
        except ValueError as error:
            yield source.fault(("name",), f"{error} (the names of the stages begin with it)")


def _with_reward(technique: Any, reward: str) -> Any:
    """Add the previous stage's reward model as the reward of a policy that names none."""
    written: Mapping[str, Any] = {"kind": technique} if isinstance(technique, str) else technique
    return {"rewards": [{"kind": "adapter", "name": reward}], **written}


def _stage_faults(source: YamlSource, stage: str, part: Mapping[str, Any]) -> Iterator[Fault]:
    for key in part:
        if key not in _OWN:
            message = f"is not part of a stage; a stage has {', '.join(_OWN)}, and the stages share one model"
            yield source.fault(("stages", stage, key), message)
    technique = part.get("technique", STAGES[stage][0])
    kind = technique if isinstance(technique, str) else kind_of(technique)
    if kind not in STAGES[stage]:
        message = f"must be one of {', '.join(STAGES[stage])} in stage {stage}; found {kind!r}"
        yield source.fault(("stages", stage, "technique"), message)
