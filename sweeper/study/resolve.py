"""A study put together with its data, its base models and its preset: all that must hold before anything trains."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper.compatibility import require, require_workers
from sweeper.config.evaluation import TASK_METRICS
from sweeper.config.loader import StudyFile
from sweeper.config.model import ModelConfig
from sweeper.config.rewards import RewardSources
from sweeper.config.study import StudyConfig
from sweeper.data.splits import SPLITS, Splits, load_splits
from sweeper.errors import DataError
from sweeper.hardware import gpus, pick_device
from sweeper.models.cache import OnStage
from sweeper.models.facts import ModelFacts, read_facts
from sweeper.models.resolve import ModelFolder, resolve
from sweeper.paths import Home
from sweeper.presets.choices import ModelSize, resolve_choices
from sweeper.presets.resolution import ResolvedSpace
from sweeper.registry.merged_base import find_start, is_start
from sweeper.registry.reward_models import reward_sources
from sweeper.study.validation import (
    combination_faults,
    condition_faults,
    function_faults,
    largest_rank,
    module_faults,
    odd_rank_faults,
    preset_faults,
    rank_faults,
    refuse,
    tokenizer_faults,
)


@dataclass(frozen=True)
class ResolvedModel:
    """A base model of a study.

    Attributes:
        found: Where it is, or what would have to be downloaded.
        facts: What it is; None where it is not on this machine yet.
    """

    found: ModelFolder
    facts: ModelFacts | None

    @property
    def size(self) -> ModelSize:
        """What its recommended ranges depend on."""
        return ModelSize(self.facts.hidden_size, self.facts.architecture) if self.facts else ModelSize()


@dataclass(frozen=True)
class ResolvedStudy:
    """A study with everything it names found.

    Attributes:
        config: The study.
        splits: Converted rows of the three splits.
        models: Its base models by name.
        space: What is searched, and why.
        device: ``cpu`` or ``cuda:N``, by what the driver lists.
        reward_sources: Where the technique's rewards were found; None where it has none.
    """

    config: StudyConfig
    splits: Splits
    models: Mapping[str, ResolvedModel]
    space: ResolvedSpace
    device: str
    reward_sources: RewardSources | None = None


def resolve_study(
    file: StudyFile,
    *,
    fetch: bool = False,
    home: Home | None = None,
    awaited: Collection[str] = (),
    on_progress: OnStage = lambda stage, fraction: None,
) -> ResolvedStudy:
    """Find the data and the models of a study and settle what is searched; imports no torch unless it converts.

    What is cheap to find wrong comes first, so that nothing is downloaded for a study that cannot run.

    Args:
        file: A valid study with its file's text, where lines are looked up, and folder, where paths start.
        fetch: Whether to download the models that are not on this machine.
        home: Where adapters are registered that the study begins from or is rewarded by; ``SWEEPER_HOME`` if left out.
        awaited: Names of adapters that an earlier stage is going to register, so that they need not be there yet.
        on_progress: Called with what is being done and how far it is.

    Raises:
        UserError: Whatever the user has to change: a device or part that is not there (HardwareError), data that
            cannot be used (DataError), an adapter that is not registered (RegistryError), a model that is not found
            (ModelNotFoundError) or cannot be used (ModelError), and, with their lines (StudyFileError), an unknown
            preset, reward functions that are not there or cannot be called, options that do not go together, target
            modules that a model does not have, ranks above what it allows, conditions that cannot hold, configurations
            outside the space, losses of models that cannot be compared.
    """
    config, home = file.config, home or Home.current()
    refuse(file, [*preset_faults(config), *combination_faults(config), *function_faults(config, file.folder)])
    present = gpus()
    device = pick_device(config.executor.device, present)
    require(config, device, present)
    require_workers(config, present)
    rewards = [each for each in getattr(config.technique, "rewards", ()) if getattr(each, "name", "") not in awaited]
    sources = reward_sources(rewards, file.folder, home) if rewards else None
    splits = load_splits(config.data, file.folder, config.technique.rows)
    _require_answers(config, splits)
    refuse(file, list(function_faults(config, file.folder, splits)))
    models = _models(file, home, fetch, on_progress)
    space = _space(file, models, len(splits.train))
    return ResolvedStudy(config, splits, models, space, device, sources)


def _models(file: StudyFile, home: Home, fetch: bool, on_progress: OnStage) -> dict[str, ResolvedModel]:
    """Find every base model; each must be somewhere before any is downloaded."""
    wanted = file.config.models
    if fetch and len(wanted) > 1:
        for model in wanted.values():
            _find(model, file.folder, home, fetch=False, on_progress=on_progress)
    found = {
        name: _find(model, file.folder, home, fetch=fetch, on_progress=on_progress) for name, model in wanted.items()
    }
    return {name: ResolvedModel(of, read_facts(of.path) if of.planned is None else None) for name, of in found.items()}


def _find(model: ModelConfig, folder: Path, home: Home, *, fetch: bool, on_progress: OnStage) -> ModelFolder:
    if is_start(model):
        return find_start(model, home, fetch=fetch, on_progress=on_progress)
    return resolve(model, folder, fetch=fetch, on_progress=on_progress)


def _space(file: StudyFile, models: Mapping[str, ResolvedModel], train_rows: int) -> ResolvedSpace:
    config = file.config
    known = {name: model.facts for name, model in models.items() if model.facts is not None}
    here = [models[name].found.path for name in known]
    faults = [*tokenizer_faults(config, here), *module_faults(config, known)]
    max_ranks = {label: None if faults else largest_rank(config, label, known) for label in config.adapters}
    space = resolve_choices(config, train_rows, {name: model.size for name, model in models.items()}, max_ranks)
    if not faults:
        faults += rank_faults(config, known)
    faults += odd_rank_faults(config, space.space)
    faults += condition_faults(config, space.space)
    refuse(file, faults)
    return space


def _require_answers(config: StudyConfig, splits: Splits) -> None:
    evaluation = config.evaluation
    need_answers = [metric for metric in (evaluation.metric, *evaluation.metrics) if metric in TASK_METRICS]
    if splits.kind == "text" and need_answers:
        raise DataError(
            f"evaluation: {need_answers[0]} compares answers, and rows of plain text have none; use perplexity or "
            "eval_loss as evaluation.metric and evaluation.metrics, or data with prompts and completions"
        )
    if config.technique.rows == "prompts":
        _require_references(config, splits, need_answers)


def _require_references(config: StudyConfig, splits: Splits, need_answers: list[Any]) -> None:
    rewarded = [reward.kind for reward in getattr(config.technique, "rewards", ()) if reward.kind == "exact_match"]
    without = [name for name in SPLITS if any("reference" not in row for row in getattr(splits, name))]
    if without and (need_answers or rewarded):
        raise DataError(
            f"data: {[*need_answers, *rewarded][0]} compares answers with a reference, and {without[0]} has rows "
            "without one; add a column reference (data.columns renames yours)"
        )
