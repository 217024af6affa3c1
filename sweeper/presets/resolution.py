"""The space of a study, resolved from its search section, the preset, the data and the model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sweeper.config.adapter import ADAPTERS, Adapter
from sweeper.config.parameters import EXCLUSIVE, LORA_PARAMETERS, step_count
from sweeper.config.search import SearchConfig
from sweeper.config.space import Fixed, Range, Space
from sweeper.config.technique import Technique
from sweeper.presets import rules
from sweeper.presets.presets import RECOMMENDED, KnownGood, Preset, Rule, load, recommend

_OPTIONS = frozenset().union(*(each.options() for each in ADAPTERS.values()))

WARNING = "warning: "
"""Prefix of a reason that the user should act on."""


@dataclass(frozen=True)
class ResolvedSpace:
    """A space with the reasons for it.

    Attributes:
        space: Range of every parameter that is not left at its default.
        known_good: Configurations to try first, inside the space; a searched parameter that a source
            does not name is left to the sampler.
        preset: Name of the preset.
        reasons: Lines for the user on what was picked and why.
    """

    space: Space
    known_good: tuple[dict[str, Any], ...]
    preset: str
    reasons: tuple[str, ...]


def resolve_space(
    search: SearchConfig,
    technique: Technique,
    adapter: Adapter,
    train_rows: int,
    hidden_size: int | None = None,
    architecture: str | None = None,
    max_rank: int | None = None,
) -> ResolvedSpace:
    """Return the space of a study: the preset's ranges, fitted to data and model, overridden by the file's.

    The model's ``hidden_size`` and ``architecture``, a class or family name, give known-good learning rates; they may
    not be known yet. Ranks above ``max_rank``, the largest that the model allows, are removed from the preset, never
    from the file. ``train_rows`` is at least 1.

    Raises:
        UserError: If the study names a preset that does not exist.
    """
    automatic = search.preset == RECOMMENDED
    preset = recommend(technique.kind, adapter.kind) if automatic else load(search.preset)
    why = f"picked for {technique.kind} with {adapter.kind}" if automatic else "named in the study"
    reasons = [f"preset {preset.name}, {why}: {preset.title}"]
    space = _overridden(_ranges(preset, adapter), search.space, reasons)
    # The rules see the file's ranges, and change only those of the preset.
    own = search.space.keys()
    if max_rank is not None and "lora_rank" not in own:
        _apply(space, "lora_rank", rules.allowed_ranks(space, max_rank), reasons)
    if automatic:
        space = _fitted(space, own, train_rows, reasons)
    reasons += _warnings(space, own, train_rows)
    known_good = _known_good(preset.known_good, space, hidden_size, architecture) if search.known_good else ()
    if known_good:
        reasons.append(tried_first(len(known_good)))
    return ResolvedSpace(space, known_good, preset.name, tuple(reasons))


def tried_first(count: int) -> str:
    """Return the line on known-good configurations."""
    return f"{count} known-good configuration{'s' * (count > 1)}, tried first with at most a third of the trials"


def _ranges(preset: Preset, adapter: Adapter) -> Space:
    """Return the preset's ranges that apply to the adapter, without the options that the study file sets."""
    open_options = adapter.options() - adapter.model_fields_set
    absent = (_OPTIONS - open_options) | set(LORA_PARAMETERS).difference(adapter.hyperparameters)
    return {name: parameter.range for name, parameter in preset.parameters.items() if name not in absent}


def _overridden(ranges: Space, own: Mapping[str, Range], reasons: list[str]) -> Space:
    """Override the preset's ranges with the file's; of two exclusive parameters, the file's wins."""
    dropped = {a for pair in EXCLUSIVE for a, b in (pair, pair[::-1]) if a not in own and b in own}
    if own:
        reasons.append(f"from the study file: {', '.join(own)}")
    return {**{name: spec for name, spec in ranges.items() if name not in dropped}, **own}


def _fitted(space: Space, own: Collection[str], train_rows: int, reasons: list[str]) -> Space:
    if "epochs" not in own:
        _apply(space, "epochs", rules.fixed_epochs(space, train_rows), reasons)
    if "batch_size" not in own:
        _apply(space, "batch_size", rules.enough_steps(space, train_rows), reasons)
    beyond = rules.warmup_beyond(space, train_rows)
    if beyond is not None and "warmup_steps" not in own:
        reasons.append(f"{beyond}: a ratio is searched instead")
        return rules.ratio_instead(space)
    return space


def _apply(space: Space, name: str, change: tuple[Range, str] | None, reasons: list[str]) -> None:
    if change is not None:
        space[name], reason = change
        reasons.append(reason)


def _warnings(space: Space, own: Collection[str], train_rows: int) -> list[str]:
    beyond = rules.warmup_beyond(space, train_rows)
    found = [] if beyond is None else [f"{WARNING}{beyond}; warmup_ratio fits any length"]
    epochs = space.get("epochs")
    if epochs is not None and not isinstance(epochs, Fixed):
        fix = "fix it in the study" if "epochs" in own else f"preset {RECOMMENDED} fixes it"
        found.append(f"{WARNING}epochs is searched, which made pruned searches worse in every measurement; {fix}")
    shortest, batch, count = rules.shortest_run(space, train_rows)
    if shortest < rules.FEWEST_STEPS:
        found.append(f"{WARNING}only {step_count(shortest)} at batch size {batch} and epochs {count:g}")
    return found


def _known_good(
    known: tuple[KnownGood, ...], space: Space, hidden_size: int | None, architecture: str | None
) -> tuple[dict[str, Any], ...]:
    """Return the known-good configurations moved into the space, without repetitions."""
    found: list[dict[str, Any]] = []
    for configuration in known:
        values = _values(configuration, hidden_size, architecture)
        inside = {} if values is None else _inside(values, space)
        if inside and inside not in found:
            found.append(inside)
    return tuple(found)


def _values(configuration: KnownGood, hidden_size: int | None, architecture: str | None) -> dict[str, Any] | None:
    """Return the values with rules computed; None if a rule needs a model that is not known."""
    values: dict[str, Any] = dict(configuration.values)
    for name, value in values.items():
        if isinstance(value, Rule):
            if hidden_size is None:
                return None
            values[name] = rules.tinker_learning_rate(hidden_size, architecture)
    return values


def _inside(values: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """Return the value nearest to the known one for each active searched parameter that the configuration names."""
    known = {name: spec for name, spec in space.items() if name in values or isinstance(spec, Fixed)}
    everything = {name: spec.clip(values.get(name)) for name, spec in known.items()}
    active = {n for n in everything if all(everything.get(k) in allowed for k, allowed in space[n].when.items())}
    return {n: v for n, v in everything.items() if n in active and not isinstance(space[n], Fixed)}
