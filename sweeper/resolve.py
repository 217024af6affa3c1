"""A study put together with its data, its base model and its preset: all that must hold before anything trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper.config.combinations import refusal
from sweeper.config.evaluation import TASK_METRICS
from sweeper.config.functions import function_fault
from sweeper.config.loader import StudyFile, nearest
from sweeper.config.rewards import FunctionReward, Reward, RewardSources
from sweeper.config.space import Choice, Fixed, IntRange, Range, Space, enqueue_faults, space_faults
from sweeper.config.study import StudyConfig
from sweeper.config.variants import combination_fault, variants
from sweeper.config.yaml_source import parse
from sweeper.data.splits import SPLITS, Splits, load_splits
from sweeper.errors import DataError, Fault, HardwareError, ModelError, StudyFileError
from sweeper.hardware import gpus, pick_device
from sweeper.models.facts import ModelFacts, read_facts
from sweeper.models.resolve import ModelFolder, resolve
from sweeper.paths import Home
from sweeper.presets import ResolvedSpace, resolve_space
from sweeper.presets import names as preset_names
from sweeper.registry.reward_models import reward_sources
from sweeper.start import find_start, is_start

Progress = Callable[[str, float | None], None]
"""Told what is being done and how far it is (0 to 1; None where that is not known)."""

_Fault = tuple[tuple[str | int, ...], str]


@dataclass(frozen=True)
class ResolvedStudy:
    """A study with everything it names found.

    Attributes:
        config: The study.
        splits: Converted rows of the three splits.
        model: Where the base model is, or what would have to be downloaded.
        facts: What the base model is; None where it is not on this machine yet.
        space: What is searched, and why.
        device: ``cpu`` or ``cuda:N``, by what the driver lists.
        reward_sources: Where the technique's rewards were found; None where it has none.
    """

    config: StudyConfig
    splits: Splits
    model: ModelFolder
    facts: ModelFacts | None
    space: ResolvedSpace
    device: str
    reward_sources: RewardSources | None = None


def resolve_study(
    file: StudyFile,
    *,
    fetch: bool = False,
    home: Home | None = None,
    on_progress: Progress = lambda stage, fraction: None,
) -> ResolvedStudy:
    """Find the data and the model of a study and settle what is searched; imports no torch unless it converts.

    What is cheap to find wrong comes first, so that nothing is downloaded for a study that cannot run.

    Args:
        file: A valid study with its file's text, where lines are looked up, and folder, where paths start.
        fetch: Whether to download the model where it is not on this machine.
        home: Where adapters are registered that the study begins from or is rewarded by; ``SWEEPER_HOME`` if left out.
        on_progress: Called with what is being done and how far it is.

    Raises:
        UserError: Whatever the user has to change: a device that is not there (HardwareError), data that cannot be
            used (DataError), rewards that cannot be found (StudyFileError, RegistryError), a model that is not found (ModelNotFoundError) or cannot be used (ModelError), and, with
            their lines (StudyFileError), an unknown preset, target modules that the model does not have, ranks above
            what it allows, conditions that cannot hold, configurations outside the space.
    """
    config = file.config
    _refuse(file, [*_preset_faults(config), *_combination_faults(config)])
    device = pick_device(config.executor.device, gpus())
    rewards = getattr(config.technique, "rewards", ())
    _refuse(file, list(_function_faults(rewards, file.folder)))
    _require_device_for_adapter(config, device)
    sources = reward_sources(rewards, file.folder, home or Home.current()) if rewards else None
    splits = load_splits(config.data, file.folder, config.technique.rows)
    _require_answers(config, splits)
    model = _find_model(config, file.folder, home or Home.current(), fetch=fetch, on_progress=on_progress)
    facts = read_facts(model.path) if model.planned is None else None
    faults = list(_module_faults(config, facts))
    max_rank = None if faults or facts is None else _largest_rank(config.search.space, facts)
    space = resolve_space(
        config.search,
        config.technique,
        config.adapter,
        len(splits.train),
        hidden_size=facts.hidden_size if facts else None,
        architecture=facts.architecture if facts else None,
        max_rank=max_rank,
    )
    faults += _rank_faults(config.search.space, max_rank)
    faults += _odd_rank_faults(config, space.space)
    faults += _condition_faults(config, space.space)
    _refuse(file, faults)
    return ResolvedStudy(config, splits, model, facts, space, device, sources)


def _find_model(config: StudyConfig, folder: Path, home: Home, *, fetch: bool, on_progress: Progress) -> ModelFolder:
    if is_start(config.model):
        return find_start(config.model, home, fetch=fetch, on_progress=on_progress)
    return resolve(config.model, folder, fetch=fetch, on_progress=on_progress)


def _require_answers(config: StudyConfig, splits: Splits) -> None:
    evaluation = config.evaluation
    need_answers = [metric for metric in (evaluation.metric, *evaluation.metrics) if metric in TASK_METRICS]
    if splits.kind == "text" and need_answers:
        raise DataError(
            f"evaluation: {need_answers[0]} compares answers, and rows of plain text have none; use perplexity or "
            "eval_loss as evaluation.metric and evaluation.metrics, or data with prompts and completions"
        )
    if getattr(config.technique, "assistant_only", False) and splits.kind != "messages":
        raise DataError(
            "technique.assistant_only learns every turn of the assistant's in a conversation, and these data are "
            f"{splits.kind.replace('_', ' and ')}; give the rows as messages, or leave it out"
        )
    if splits.kind.startswith("prompt") and config.technique.rows == "prompts":
        _require_references(config, splits, need_answers)


def _require_references(config: StudyConfig, splits: Splits, need_answers: list[Any]) -> None:
    rewarded = [reward.kind for reward in getattr(config.technique, "rewards", ()) if reward.kind == "exact_match"]
    without = [name for name in SPLITS if any("reference" not in row for row in getattr(splits, name))]
    if without and (need_answers or rewarded):
        raise DataError(
            f"data: {[*need_answers, *rewarded][0]} compares answers with a reference, and {without[0]} has rows "
            "without one; add a column reference (data.columns renames yours)"
        )


def _refuse(file: StudyFile, faults: list[_Fault]) -> None:
    """Raise what is wrong with a study, each fault with its line."""
    if faults:
        source = parse(str(file.path), file.text)
        placed = (((*file.within, *path), message) for path, message in faults)
        found = (Fault(".".join(map(str, path)), message, source.line(path)) for path, message in placed)
        raise StudyFileError(str(file.path), tuple(found))


def _preset_faults(config: StudyConfig) -> Iterator[_Fault]:
    name = config.search.preset
    if name not in preset_names():
        hint = nearest(name, preset_names())
        known = f"there is no preset {name!r}; known are {', '.join(preset_names())}"
        yield ("search", "preset"), f"{known}; {hint}" if hint else known


def _function_faults(rewards: Sequence[Reward], folder: Path) -> Iterator[_Fault]:
    for index, reward in enumerate(rewards):
        if isinstance(reward, FunctionReward) and (fault := function_fault(reward.function, folder)):
            yield ("technique", "rewards", index, "function"), fault


def _combination_faults(config: StudyConfig) -> Iterator[_Fault]:
    found = combination_fault(config.adapter, config.search.space)
    if found is not None:
        name, message = found
        yield ("search", "space", name), f"{message}; or add a `when` that keeps them apart"
        return
    for adapter in variants(config.adapter, config.search.space):
        reason = refusal(config.technique, adapter)
        if reason is not None:
            yield ("search", "space"), reason
            return


def _require_device_for_adapter(config: StudyConfig, device: str) -> None:
    inits = {getattr(adapter, "init", None) for adapter in variants(config.adapter, config.search.space)}
    if "loftq" in inits and device == "cpu":
        raise HardwareError(
            "adapter: init loftq is computed on CUDA by PEFT, and the study trains on the CPU; use init default, "
            "gaussian or eva, or a machine with a GPU"
        )


def _module_faults(config: StudyConfig, facts: ModelFacts | None) -> Iterator[_Fault]:
    if facts is None:
        return
    if not facts.linear:
        raise ModelError(f"{facts.architecture} has no linear layers that an adapter could sit on")
    if config.adapter.modules:
        try:
            facts.targets(config.adapter.modules)
        except ModelError as error:
            yield ("adapter",), f"{error}; name its layers in attention_modules and feedforward_modules"
    for modules in _targets(config.search.space):
        try:
            facts.targets(modules)
        except ModelError as error:
            yield ("search", "space", "target_modules"), str(error)


def _targets(space: Space) -> tuple[Any, ...]:
    """Return every value that ``target_modules`` may take."""
    return _values(space["target_modules"]) if "target_modules" in space else ("all-linear",)


def _largest_rank(space: Space, facts: ModelFacts) -> int:
    return min(facts.largest_rank(modules) for modules in _targets(space))


def _rank_faults(own: Space, max_rank: int | None) -> Iterator[_Fault]:
    if max_rank is None or "lora_rank" not in own:
        return
    above = [rank for rank in _values(own["lora_rank"]) if isinstance(rank, int | float) and rank > max_rank]
    if above:
        yield (
            ("search", "space", "lora_rank"),
            f"rank {', '.join(map(str, above))} is above what the model allows: its smallest adapted layer is "
            f"{max_rank} wide, so the largest rank is {max_rank}",
        )


def _odd_rank_faults(config: StudyConfig, space: Space) -> Iterator[_Fault]:
    inits = {getattr(adapter, "init", None) for adapter in variants(config.adapter, space)}
    ranks = _ranks(space) if "orthogonal" in inits else ()
    if any(rank % 2 for rank in ranks):
        message = "init orthogonal needs even ranks: it pairs A's rows with B's columns"
        yield ("search", "space", "lora_rank"), message


def _ranks(space: Space) -> Sequence[int]:
    """Return every rank of a space."""
    range_ = space.get("lora_rank")
    if range_ is None:
        return ()
    if isinstance(range_, IntRange):
        return range(range_.low, range_.high + 1, range_.step)
    return tuple(int(rank) for rank in _values(range_) if isinstance(rank, int | float))


def _condition_faults(config: StudyConfig, space: Space) -> Iterator[_Fault]:
    """Conditions and configurations of the file, held against the space with the preset's part in it."""
    conditions = space_faults(space)
    for name, message in conditions:
        yield ("search", "space", name), message
    if not conditions:
        for place, message in enqueue_faults(space, config.search.enqueue):
            index, _, name = place.partition(".")
            yield ("search", "enqueue", int(index), name), message


def _values(range_: Range) -> tuple[Any, ...]:
    """Return the values that bound a range: all of a choice, else its extremes."""
    if isinstance(range_, Choice):
        return range_.choice
    return (range_.value,) if isinstance(range_, Fixed) else range_.corners()
