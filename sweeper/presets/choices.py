"""The space of a study that chooses between adapters or base models, merged from those of the alternatives.

Each alternative is resolved as if the study had no other. A parameter with the same range in all of them stays one
parameter; otherwise it becomes one per alternative, searched only if that alternative is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sweeper.config.adapter import Adapter
from sweeper.config.parameters import EXCLUSIVE, LORA_PARAMETERS
from sweeper.config.search import SearchConfig
from sweeper.config.space import ADAPTER, MODEL, Choice, Range, Space, scoped
from sweeper.config.study import StudyConfig
from sweeper.presets.resolution import WARNING, ResolvedSpace, resolve_space, tried_first


@dataclass(frozen=True)
class ModelSize:
    """The sizes of a base model that its recommended ranges depend on; None if not known yet."""

    hidden_size: int | None = None
    architecture: str | None = None


def resolve_choices(
    config: StudyConfig, train_rows: int, models: Mapping[str, ModelSize], max_ranks: Mapping[str, int | None]
) -> ResolvedSpace:
    """Return the space of a study, whether it chooses or not.

    ``models`` are its base models by label, ``max_ranks`` the largest rank that all of them allow by the adapter's
    label, None if not known. ``train_rows`` is at least 1.

    Raises:
        UserError: If the study names a preset that does not exist.
    """

    def alone(label: str, size: ModelSize) -> ResolvedSpace:
        search, adapter = search_of(config, label), config.adapters[label].adapter
        about = train_rows, size.hidden_size, size.architecture, max_ranks[label]
        return resolve_space(search, config.technique, adapter, *about)

    found = {(name, label): alone(label, size) for name, size in models.items() for label in config.adapters}
    first = next(iter(models))
    adapters = {label: found[first, label] for label in config.adapters}
    if len(found) == 1:
        return adapters.popitem()[1]
    names = _names({label: resolved.space for label, resolved in adapters.items()})
    space = _merged({label: resolved.space for label, resolved in adapters.items()}, names)
    if len(models) > 1:
        space = {MODEL: Choice(choice=tuple(models)), **space}
    known_good = tuple(
        {part: chosen for part, chosen in ((MODEL, name), (ADAPTER, label)) if part in space}
        | {names[label][parameter]: value for parameter, value in resolved.known_good[0].items()}
        for (name, label), resolved in found.items()
        if resolved.known_good
    )
    presets = dict.fromkeys(resolved.preset for resolved in adapters.values())
    reasons = [*_reasons(adapters), *([tried_first(len(known_good))] if known_good else [])]
    return ResolvedSpace(space, known_good, ", ".join(presets), tuple(reasons))


def search_of(config: StudyConfig, label: str) -> SearchConfig:
    """Return a study's search for one of its adapters: the file's ranges over the adapter's own."""
    adapter, own = config.adapters[label].adapter, config.adapters[label].space
    general = {name: range_ for name, range_ in config.search.space.items() if _concerns(config, name, adapter)}
    taken = general.keys() | {a for pair in EXCLUSIVE for a, b in (pair, pair[::-1]) if b in general}
    own = {name: range_ for name, range_ in own.items() if name not in taken}
    return config.search.model_copy(update={"space": {**own, **general}})


def _concerns(config: StudyConfig, name: str, adapter: Adapter) -> bool:
    """Return whether a range for all alternatives applies to one of them."""
    if len(config.adapters) == 1:
        return True
    if name in LORA_PARAMETERS:
        return name in adapter.hyperparameters
    others_option = any(name in type(one.adapter).model_fields for one in config.adapters.values())
    return name in type(adapter).model_fields or not others_option


def _names(spaces: Mapping[str, Space]) -> dict[str, dict[str, str]]:
    """Return the names of each alternative's parameters in the whole space."""
    alike = _alike(spaces)
    return {label: {n: n if n in alike else scoped(label, n) for n in space} for label, space in spaces.items()}


def _alike(spaces: Mapping[str, Space]) -> set[str]:
    """Return the parameters with the same range and conditions in all alternatives that have them."""
    ranges: dict[str, list[Range]] = {}
    for space in spaces.values():
        for name, range_ in space.items():
            ranges.setdefault(name, []).append(range_)
    alike = {name for name, found in ranges.items() if all(range_ == found[0] for range_ in found)}
    while others := {name for name in alike if any(k in ranges and k not in alike for k in ranges[name][0].when)}:
        alike -= others
    return alike


def _merged(spaces: Mapping[str, Space], names: Mapping[str, Mapping[str, str]]) -> Space:
    if len(spaces) == 1:
        return dict(next(iter(spaces.values())))
    merged: Space = {ADAPTER: Choice(choice=tuple(spaces))}
    for label, space in spaces.items():
        for name, range_ in space.items():
            full = names[label][name]
            having = [other for other in spaces if names[other].get(name) == full]
            only = {ADAPTER: tuple(having)} if len(having) < len(spaces) else {}
            when = {names[label].get(parent, parent): values for parent, values in range_.when.items()}
            merged[full] = range_.model_copy(update={"when": {**only, **when}})
    return merged


def _reasons(adapters: Mapping[str, ResolvedSpace]) -> tuple[str, ...]:
    """Return the reasons: once if they are the same for all alternatives, else with the alternative's name."""
    found: dict[str, None] = {}
    for label, resolved in adapters.items():
        for reason in resolved.reasons:
            if reason == tried_first(len(resolved.known_good)):
                continue
            shared = all(reason in other.reasons for other in adapters.values())
            mark = WARNING if reason.startswith(WARNING) else ""
            found[reason if shared else f"{mark}{label}: {reason.removeprefix(mark)}"] = None
    return tuple(found)
