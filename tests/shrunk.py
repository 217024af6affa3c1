"""The example studies, small enough for a tiny model: fewer rows, trials and epochs, everything else as written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeper.config.loader import PipelineFile, StudyFile, load_study
from sweeper.config.study import StudyConfig

STUDIES = Path(__file__).parents[1] / "studies"

_ROWS = {"train_rows": 12, "validation_rows": 6, "test_rows": 6}
_SPACE = {"batch_size": 4, "epochs": 1, "num_generations": 2}
_LARGEST_RANK = 16


def shrunk(path: Path, models: tuple[Path, ...]) -> StudyFile | PipelineFile:
    """Return a study file on tiny models in place of its own."""
    file = load_study(path)
    if isinstance(file, StudyFile):
        return _shrunk(file, models)
    return replace(file, stages={stage: _shrunk(study, models) for stage, study in file.stages.items()})


def _shrunk(file: StudyFile, models: tuple[Path, ...]) -> StudyFile:
    data: dict[str, Any] = file.config.model_dump(exclude_unset=True)
    data["data"] |= _ROWS
    data["model"] = _tiny(data["model"], models)
    data.setdefault("technique", {"kind": "sft"})
    data["technique"] |= {"max_length": 128}
    if "max_completion_length" in data["technique"]:
        data["technique"]["max_completion_length"] = 4
    search = data.setdefault("search", {})
    search["space"] = {name: _small(name, range_) for name, range_ in search.get("space", {}).items()}
    search |= {"n_trials": 2 if "choice" not in data.get("adapter", {}) else 4, "confirm": 0, "max_epochs_total": None}
    data.setdefault("evaluation", {})
    data["evaluation"] |= {"points": 1, "candidates": 1, "max_new_tokens": 4}
    data.setdefault("executor", {})
    data["executor"] |= {"device": "cpu"}
    return replace(file, config=StudyConfig.model_validate(data))


def _tiny(model: Mapping[str, Any], models: tuple[Path, ...]) -> dict[str, Any]:
    """Return the tiny model, or, of a choice, one for each."""
    if "choice" in model:
        named = zip(model["choice"], models, strict=False)
        return {**model, "choice": [{**each, "name": str(folder)} for each, folder in named]}
    return {**model, "name": str(models[0]), "revision": None}


def _small(name: str, range_: Mapping[str, Any]) -> Any:
    if name in _SPACE:
        return _SPACE[name]
    if name == "lora_rank" and range_["kind"] == "choice":
        return {**range_, "choice": sorted({min(rank, _LARGEST_RANK) for rank in range_["choice"]})}
    return range_
