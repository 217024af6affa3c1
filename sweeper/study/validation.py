"""Faults of well-formed studies, each with its place in the file and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeper.config.choice import AdapterChoice, combination_fault, variants
from sweeper.config.combinations import refusal
from sweeper.config.evaluation import LOSSES, TASK_METRICS
from sweeper.config.functions import function_fault
from sweeper.config.loader import StudyFile, nearest
from sweeper.config.rewards import FunctionReward
from sweeper.config.space import (
    ADAPTER,
    Choice,
    Fixed,
    IntRange,
    Range,
    Space,
    bare,
    enqueue_faults,
    ranges_of,
    scoped,
    space_faults,
)
from sweeper.config.study import StudyConfig
from sweeper.config.yaml_source import Path_, parse
from sweeper.data.splits import SPLITS, Splits
from sweeper.errors import Fault, ModelError, StudyFileError
from sweeper.models.facts import ModelFacts, tokenizer_fingerprint
from sweeper.presets.choices import search_of
from sweeper.presets.presets import names as preset_names

Found = tuple[Path_, str]
"""Where in the file, and what is wrong there."""


def refuse(file: StudyFile, faults: Sequence[Found]) -> None:
    """Raise what is wrong with a study, each fault with its line.

    Raises:
        StudyFileError: If anything is.
    """
    if faults:
        source = parse(str(file.path), file.text)
        placed = (((*file.within, *path), message) for path, message in dict.fromkeys(faults))
        found = (Fault(".".join(map(str, path)), message, source.line(path)) for path, message in placed)
        raise StudyFileError(str(file.path), tuple(found))


def preset_faults(config: StudyConfig) -> Iterator[Found]:
    """Yield that there is no such preset."""
    name = config.search.preset
    if name not in preset_names():
        hint = nearest(name, preset_names())
        known = f"there is no preset {name!r}; known are {', '.join(preset_names())}"
        yield ("search", "preset"), f"{known}; {hint}" if hint else known


def function_faults(config: StudyConfig, folder: Path, splits: Splits | None = None) -> Iterator[Found]:
    """Yield which reward functions of the user's own cannot be found, or called with what the rows have.

    ``splits`` is None where the rows are not read yet.
    """
    calls: list[tuple[str, ...] | None] = [None]
    if splits is not None:
        with_reference = [any("reference" in row for row in getattr(splits, name)) for name in SPLITS]
        calls = [("prompts", "completions", *["reference"] * given) for given in dict.fromkeys(with_reference)]
    for index, reward in enumerate(getattr(config.technique, "rewards", ())):
        for arguments in calls if isinstance(reward, FunctionReward) else ():
            if fault := function_fault(reward.function, folder, arguments):
                yield ("technique", "rewards", index, "function"), fault


def combination_faults(config: StudyConfig) -> Iterator[Found]:
    """Yield which options of an adapter, as the file has them, go neither together nor with the technique."""
    for label, alternative in config.adapters.items():
        space = search_of(config, label).space
        fault = combination_fault(alternative.adapter, space)
        if fault is not None:
            name, message = fault
            yield _place(config, scoped(label, name)), f"{message}; or add a `when` that keeps them apart"
            continue
        reasons = (refusal(config.technique, adapter) for adapter in variants(alternative.adapter, space))
        yield from ((("search", "space"), reason) for reason in reasons if reason is not None)


def tokenizer_faults(config: StudyConfig, folders: Sequence[Path]) -> Iterator[Found]:
    """Yield what compares losses of different models: per token, they need tokens that are the same."""
    if len({tokenizer_fingerprint(folder) for folder in folders}) < 2:
        return
    deciding = {"metric": config.evaluation.metric, "metrics": config.evaluation.metrics[0]}
    for field, metric in deciding.items():
        if metric in LOSSES:
            yield (
                ("evaluation", field),
                f"{metric} is a loss per token, and the models cut text into different tokens, so it cannot compare "
                f"them; decide by a task metric: {', '.join(TASK_METRICS)}",
            )


def module_faults(config: StudyConfig, known: Mapping[str, ModelFacts]) -> Iterator[Found]:
    """Yield which layers the file names that a model does not have.

    Raises:
        ModelError: If a model has no layers that an adapter could sit on.
    """
    for facts in known.values():
        if not facts.linear:
            raise ModelError(f"{facts.architecture} has no linear layers that an adapter could sit on")
        for alternative in config.adapters.values():
            fault = _module_fault(facts, alternative.adapter.modules) if alternative.adapter.modules else None
            if fault is not None:
                yield (ADAPTER,), f"{fault}; name its layers in attention_modules and feedforward_modules"
    for path, range_ in _written(config, "target_modules"):
        faults = (_module_fault(facts, modules) for facts in known.values() for modules in _values(range_))
        yield from ((path, message) for message in faults if message is not None)


def largest_rank(config: StudyConfig, label: str, known: Mapping[str, ModelFacts]) -> int | None:
    """Return the largest rank that every model allows under an adapter; None where no model is here yet."""
    own = search_of(config, label).space
    targets = _values(own["target_modules"]) if "target_modules" in own else ("all-linear",)
    return min((facts.largest_rank(modules) for facts in known.values() for modules in targets), default=None)


def rank_faults(config: StudyConfig, known: Mapping[str, ModelFacts]) -> Iterator[Found]:
    """Yield which ranks of the file are above what a model allows."""
    for label in config.adapters:
        own = search_of(config, label).space
        for name, facts in known.items() if "lora_rank" in own else ():
            most = largest_rank(config, label, {name: facts})
            above = [rank for rank in _values(own["lora_rank"]) if isinstance(rank, int | float) and rank > (most or 0)]
            if above:
                yield (
                    _place(config, scoped(label, "lora_rank")),
                    f"rank {', '.join(map(str, above))} is above what {'the model' if len(known) == 1 else name} "
                    f"allows: its smallest adapted layer is {most} wide, so the largest rank is {most}",
                )


def odd_rank_faults(config: StudyConfig, space: Space) -> Iterator[Found]:
    """Yield that an initialisation needs even ranks."""
    inits = {getattr(adapter, "init", None) for adapter in config.variants(space)}
    ranks = (rank for range_ in ranges_of(space, "lora_rank") for rank in _ranks(range_))
    if "orthogonal" in inits and any(rank % 2 for rank in ranks):
        yield ("search", "space", "lora_rank"), "init orthogonal needs even ranks: it pairs A's rows with B's columns"


def condition_faults(config: StudyConfig, space: Space) -> Iterator[Found]:
    """Yield conditions and configurations of the file that cannot hold in the whole space."""
    conditions = space_faults(space)
    for name, message in conditions:
        yield _place(config, name), message
    if not conditions:
        for place, message in enqueue_faults(space, config.search.enqueue):
            index, _, name = place.partition(".")
            yield ("search", "enqueue", int(index), name), message


def _module_fault(facts: ModelFacts, modules: Any) -> str | None:
    try:
        facts.targets(modules)
    except ModelError as error:
        return str(error)
    return None


def _written(config: StudyConfig, name: str) -> Iterator[tuple[Path_, Range]]:
    """Yield every range that the file gives a parameter, and where."""
    if name in config.search.space:
        yield ("search", "space", name), config.search.space[name]
    if isinstance(config.adapter, AdapterChoice):
        for index, alternative in enumerate(config.adapter.choice):
            if name in alternative.space:
                yield (ADAPTER, "choice", index, "space", name), alternative.space[name]


def _place(config: StudyConfig, name: str) -> Path_:
    """Return where the file gives a parameter of the space its range; what it says for all alternatives holds."""
    label, own = name.removesuffix(f".{bare(name)}"), bare(name)
    written = [path for path, _ in _written(config, own)]
    theirs = [path for path in written if path[0] == ADAPTER and list(config.adapters)[int(path[2])] == label]
    return next(iter([*(path for path in written if path[0] != ADAPTER), *theirs, *written]), ("search", "space", own))


def _ranks(range_: Range) -> Sequence[int]:
    if isinstance(range_, IntRange):
        return range(range_.low, range_.high + 1, range_.step)
    return tuple(int(rank) for rank in _values(range_) if isinstance(rank, int | float))


def _values(range_: Range) -> tuple[Any, ...]:
    """Return the values that bound a range: all of a choice, else its extremes."""
    if isinstance(range_, Choice):
        return range_.choice
    return (range_.value,) if isinstance(range_, Fixed) else range_.corners()
