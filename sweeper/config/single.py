"""A study file that repeats one trial: its configuration, with nothing to search."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sweeper.config.adapter import AnyAdapter
from sweeper.config.choice import ModelChoice, pick
from sweeper.config.parameters import EXCLUSIVE, LORA_PARAMETERS, PARAMETERS
from sweeper.config.space import ADAPTER, MODEL
from sweeper.config.study import StudyConfig

_HEADER = """\
# The configuration of trial {number} of study {study}; run it again with `sweeper run FILE`.
# The rows are those that the study had prepared, so train, validation and test are the same.
"""
_REPEATS = """\
# The seed is the study's; a trial's seed derives from it, so this run repeats trial {number} but for its randomness.
"""
_BEGINS_ANEW = """\
# This is not a repetition: trial {number} started from the weights of trial {initial}, this run from the base alone.
"""
_FUNCTIONS = "# Its reward functions are looked up in the folder of this file: put it into {folder}\n"


def single_study(
    config: StudyConfig,
    number: int,
    parameters: Mapping[str, Any],
    *,
    rows: Mapping[str, Path],
    model_folder: Path | None = None,
    functions_in: Path | None = None,
    initial: int | None = None,
) -> str:
    """Return a study file that runs one configuration once."""
    adapter = pick(config.adapters, parameters.get(ADAPTER)).adapter
    chosen = {name: list(value) if isinstance(value, tuple) else value for name, value in parameters.items()}
    model = pick(config.models, parameters.get(MODEL)).model_dump(mode="json", exclude_defaults=True)
    if model_folder is not None:
        model = {**model, "name": str(model_folder)}
    evaluation = config.evaluation.model_dump(mode="json", exclude_defaults=True)
    evaluation |= {"metric": config.evaluation.metric, "metrics": list(config.evaluation.metrics)}
    if isinstance(config.model, ModelChoice):  # the smallest of one model is that one
        evaluation.pop("objectives", None)
    study = {
        "name": f"{config.name[:85]}-trial-{number}",
        "model": model,
        "data": {split: str(path) for split, path in rows.items()},
        "technique": _written(config.technique),
        "adapter": adapter.with_options(chosen).model_dump(mode="json"),
        "backend": _written(config.backend),
        "search": {
            "preset": config.search.preset,
            "space": _fixed(chosen, adapter),
            "known_good": False,
            "sampler": "random",
            "pruner": "none",
            "n_trials": 1,
            "confirm": 0.0,
        },
        "evaluation": evaluation,
        "executor": _written(config.executor),
        "seed": config.seed,
    }
    rewards = getattr(config.technique, "rewards", ())
    note = _FUNCTIONS.format(folder=functions_in) if any(each.kind == "function" for each in rewards) else ""
    header = _HEADER + (_REPEATS if initial is None else _BEGINS_ANEW)
    return (
        header.format(number=number, study=config.name, initial=initial) + note + yaml.safe_dump(study, sort_keys=False)
    )


def _written(part: Any) -> dict[str, Any]:
    """Return a part of a study as a file writes it: its kind, and non-default options."""
    return {"kind": part.kind, **part.model_dump(mode="json", by_alias=True, exclude_defaults=True)}


def _fixed(chosen: Mapping[str, Any], adapter: AnyAdapter) -> dict[str, Any]:
    """Return the space in which every parameter has one value."""
    absent = set(LORA_PARAMETERS).difference(adapter.hyperparameters)
    space = {name: chosen[name] for name in PARAMETERS if name in chosen and name not in absent}
    space |= {name: value for name, value in (chosen.get("trl") or {}).items() if name not in adapter.options()}
    for steps, ratio in EXCLUSIVE:
        space.pop(ratio if space.get(steps) is not None else steps, None)
        if space.get(ratio, 0) is None:
            space[ratio] = 0.0
    # A bare list would be a choice.
    return {name: {"value": value} if isinstance(value, list) else value for name, value in space.items()}
