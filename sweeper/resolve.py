"""A study put together with its data, its base model and its preset: all that must hold before anything trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sweeper.config.evaluation import TASK_METRICS
from sweeper.config.loader import StudyFile, nearest
from sweeper.config.space import Choice, Fixed, Range, Space, enqueue_faults, space_faults
from sweeper.config.study import StudyConfig
from sweeper.config.yaml_source import parse
from sweeper.data.splits import Splits, load_splits
from sweeper.errors import DataError, Fault, ModelError, StudyFileError
from sweeper.hardware import gpus, pick_device
from sweeper.models.facts import ModelFacts, read_facts
from sweeper.models.resolve import ModelFolder, resolve
from sweeper.presets import ResolvedSpace, resolve_space
from sweeper.presets import names as preset_names
from sweeper.support import require

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
    """

    config: StudyConfig
    splits: Splits
    model: ModelFolder
    facts: ModelFacts | None
    space: ResolvedSpace
    device: str


def resolve_study(
    file: StudyFile, *, fetch: bool = False, on_progress: Progress = lambda stage, fraction: None
) -> ResolvedStudy:
    """Find the data and the model of a study and settle what is searched; imports no torch unless it converts.

    What is cheap to find wrong comes first, so that nothing is downloaded for a study that cannot run.

    Args:
        file: A valid study with its file's text, where lines are looked up, and folder, where paths start.
        fetch: Whether to download the model where it is not on this machine.
        on_progress: Called with what is being done and how far it is.

    Raises:
        UserError: Whatever the user has to change: a device or part that is not there (HardwareError), data that
            cannot be used (DataError), a model that is not found (ModelNotFoundError) or cannot be used (ModelError),
            and, with their lines (StudyFileError), an unknown preset, target modules that the model does not have,
            ranks above what it allows, conditions that cannot hold, configurations outside the space.
    """
    config = file.config
    _refuse(file, list(_preset_faults(config)))
    present = gpus()
    device = pick_device(config.executor.device, present)
    require(config, device, present)
    splits = load_splits(config.data, file.folder)
    _require_answers(config, splits)
    model = resolve(config.model, file.folder, fetch=fetch, on_progress=on_progress)
    facts = read_facts(model.path) if model.planned is None else None
    faults = list(_module_faults(config.search.space, facts))
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
    faults += _condition_faults(config, space.space)
    _refuse(file, faults)
    return ResolvedStudy(config, splits, model, facts, space, device)


def _require_answers(config: StudyConfig, splits: Splits) -> None:
    evaluation = config.evaluation
    need_answers = [metric for metric in (evaluation.metric, *evaluation.metrics) if metric in TASK_METRICS]
    if splits.kind == "text" and need_answers:
        raise DataError(
            f"evaluation: {need_answers[0]} compares answers, and rows of plain text have none; use perplexity or "
            "eval_loss as evaluation.metric and evaluation.metrics, or data with prompts and completions"
        )


def _refuse(file: StudyFile, faults: list[_Fault]) -> None:
    """Raise what is wrong with a study, each fault with its line."""
    if faults:
        source = parse(str(file.path), file.text)
        found = (Fault(".".join(map(str, path)), message, source.line(path)) for path, message in faults)
        raise StudyFileError(str(file.path), tuple(found))


def _preset_faults(config: StudyConfig) -> Iterator[_Fault]:
    name = config.search.preset
    if name not in preset_names():
        hint = nearest(name, preset_names())
        known = f"there is no preset {name!r}; known are {', '.join(preset_names())}"
        yield ("search", "preset"), f"{known}; {hint}" if hint else known


def _module_faults(own: Space, facts: ModelFacts | None) -> Iterator[_Fault]:
    if facts is None:
        return
    if not facts.linear:
        raise ModelError(f"{facts.architecture} has no linear layers that an adapter could sit on")
    for modules in _targets(own):
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
