"""A study put together with its data, its base model and its preset: all that must hold before anything trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sweeper.config.choice import AdapterChoice
from sweeper.config.evaluation import LOSSES, TASK_METRICS
from sweeper.config.loader import StudyFile, nearest
from sweeper.config.space import ADAPTER, Choice, Fixed, Range, Space, bare, enqueue_faults, scoped, space_faults
from sweeper.config.study import StudyConfig
from sweeper.config.yaml_source import parse
from sweeper.data.splits import Splits, load_splits
from sweeper.errors import DataError, Fault, ModelError, StudyFileError
from sweeper.hardware import gpus, pick_device
from sweeper.models.facts import ModelFacts, read_facts, tokenizer_fingerprint
from sweeper.models.resolve import ModelFolder, resolve
from sweeper.presets import ModelSize, ResolvedSpace, resolve_choices, search_of
from sweeper.presets import names as preset_names

Progress = Callable[[str, float | None], None]
"""Told what is being done and how far it is (0 to 1; None where that is not known)."""

_Fault = tuple[tuple[str | int, ...], str]


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
    """

    config: StudyConfig
    splits: Splits
    models: Mapping[str, ResolvedModel]
    space: ResolvedSpace
    device: str


def resolve_study(
    file: StudyFile, *, fetch: bool = False, on_progress: Progress = lambda stage, fraction: None
) -> ResolvedStudy:
    """Find the data and the models of a study and settle what is searched; imports no torch unless it converts.

    What is cheap to find wrong comes first, so that nothing is downloaded for a study that cannot run.

    Args:
        file: A valid study with its file's text, where lines are looked up, and folder, where paths start.
        fetch: Whether to download the models that are not on this machine.
        on_progress: Called with what is being done and how far it is.

    Raises:
        UserError: Whatever the user has to change: a device that is not there (HardwareError), data that cannot be
            used (DataError), a model that is not found (ModelNotFoundError) or cannot be used (ModelError), and, with
            their lines (StudyFileError), an unknown preset, target modules that the model does not have, ranks above
            what it allows, conditions that cannot hold, configurations outside the space, losses of models that
            cannot be compared.
    """
    config = file.config
    _refuse(file, list(_preset_faults(config)))
    device = pick_device(config.executor.device, gpus())
    splits = load_splits(config.data, file.folder)
    _require_answers(config, splits)
    models = _models(file, fetch, on_progress)
    known = {name: model.facts for name, model in models.items() if model.facts is not None}
    faults = [*_tokenizer_faults(config, models), *_module_faults(config, known)]
    max_ranks = {label: None if faults else _largest_rank(config, label, known) for label in config.adapters}
    sizes = {name: model.size for name, model in models.items()}
    space = resolve_choices(config, len(splits.train), sizes, max_ranks)
    if not faults:
        faults += dict.fromkeys(_rank_faults(config, known))
    faults += _condition_faults(config, space.space)
    _refuse(file, faults)
    return ResolvedStudy(config, splits, models, space, device)


def _models(file: StudyFile, fetch: bool, on_progress: Progress) -> dict[str, ResolvedModel]:
    """Find every base model; each must be somewhere before any is downloaded."""
    wanted = file.config.models
    if fetch and len(wanted) > 1:
        for model in wanted.values():
            resolve(model, file.folder, fetch=False)
    found = {name: resolve(model, file.folder, fetch=fetch, on_progress=on_progress) for name, model in wanted.items()}
    return {name: ResolvedModel(of, read_facts(of.path) if of.planned is None else None) for name, of in found.items()}


def _tokenizer_faults(config: StudyConfig, models: Mapping[str, ResolvedModel]) -> Iterator[_Fault]:
    """Losses count per token, so they compare models only where these cut text into the same tokens."""
    here = [model.found.path for model in models.values() if model.facts is not None]
    if len({tokenizer_fingerprint(path) for path in here}) < 2:
        return
    deciding = {"metric": config.evaluation.metric, "metrics": config.evaluation.metrics[0]}
    for field, metric in deciding.items():
        if metric in LOSSES:
            yield (
                ("evaluation", field),
                f"{metric} is a loss per token, and the models cut text into different tokens, so it cannot compare "
                f"them; decide by a task metric: {', '.join(TASK_METRICS)}",
            )


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


def _module_faults(config: StudyConfig, known: Mapping[str, ModelFacts]) -> Iterator[_Fault]:
    for facts in known.values():
        if not facts.linear:
            raise ModelError(f"{facts.architecture} has no linear layers that an adapter could sit on")
    for path, range_ in _written(config, "target_modules"):
        faults = (_module_fault(facts, modules) for facts in known.values() for modules in _values(range_))
        yield from ((path, message) for message in dict.fromkeys(faults) if message is not None)


def _module_fault(facts: ModelFacts, modules: Any) -> str | None:
    try:
        facts.targets(modules)
    except ModelError as error:
        return str(error)
    return None


def _written(config: StudyConfig, name: str) -> Iterator[tuple[tuple[str | int, ...], Range]]:
    """Return every range that the file gives a parameter, and where."""
    if name in config.search.space:
        yield ("search", "space", name), config.search.space[name]
    if isinstance(config.adapter, AdapterChoice):
        for index, alternative in enumerate(config.adapter.choice):
            if name in alternative.space:
                yield (ADAPTER, "choice", index, "space", name), alternative.space[name]


def _largest_rank(config: StudyConfig, label: str, known: Mapping[str, ModelFacts]) -> int | None:
    """Return the largest rank that every model allows under an adapter; None where no model is here yet."""
    own = search_of(config, label).space
    targets = _values(own["target_modules"]) if "target_modules" in own else ("all-linear",)
    return min((facts.largest_rank(modules) for facts in known.values() for modules in targets), default=None)


def _rank_faults(config: StudyConfig, known: Mapping[str, ModelFacts]) -> Iterator[_Fault]:
    for label in config.adapters:
        own = search_of(config, label).space
        for name, facts in known.items() if "lora_rank" in own else ():
            most = _largest_rank(config, label, {name: facts})
            above = [rank for rank in _values(own["lora_rank"]) if isinstance(rank, int | float) and rank > (most or 0)]
            if above:
                yield (
                    _place(config, scoped(label, "lora_rank")),
                    f"rank {', '.join(map(str, above))} is above what {'the model' if len(known) == 1 else name} "
                    f"allows: its smallest adapted layer is {most} wide, so the largest rank is {most}",
                )


def _condition_faults(config: StudyConfig, space: Space) -> Iterator[_Fault]:
    """Conditions and configurations of the file, held against the space with the preset's part in it."""
    conditions = space_faults(space)
    for name, message in conditions:
        yield _place(config, name), message
    if not conditions:
        for place, message in enqueue_faults(space, config.search.enqueue):
            index, _, name = place.partition(".")
            yield ("search", "enqueue", int(index), name), message


def _place(config: StudyConfig, name: str) -> tuple[str | int, ...]:
    """Return where the file gives a parameter of the space its range; what it says for all alternatives holds."""
    label, own = name.removesuffix(f".{bare(name)}"), bare(name)
    written = [path for path, _ in _written(config, own)]
    theirs = [path for path in written if path[0] == ADAPTER and list(config.adapters)[int(path[2])] == label]
    return next(iter([*(path for path in written if path[0] != ADAPTER), *theirs, *written]), ("search", "space", name))


def _values(range_: Range) -> tuple[Any, ...]:
    """Return the values that bound a range: all of a choice, else its extremes."""
    if isinstance(range_, Choice):
        return range_.choice
    return (range_.value,) if isinstance(range_, Fixed) else range_.corners()
