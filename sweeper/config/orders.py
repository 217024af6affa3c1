"""Rules for orders to a running study, shared by the sender and the executor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from sweeper.config.adapter import AnyAdapter, LowRank
from sweeper.config.executor import PackingExecutorConfig
from sweeper.config.parameters import alpha_value
from sweeper.config.space import ADAPTER, MODEL, Range, bare, enqueue_faults, in_order, is_active, listed
from sweeper.config.study import StudyConfig
from sweeper.errors import UserError

BUDGET = ("n_trials", "timeout", "max_epochs_total", "slots")
"""The limits of a study that an order may change: parts of ``search`` and ``executor``."""

_WORDS = {"slots": "must be a number of at least 1, or auto; 256 is the most"}
"""Messages for values of several types, of which Pydantic would report the last one tried."""

_SHAPE = ("lora_rank", "lora_alpha", "target_modules")
"""The hyperparameters that must be equal for saved weights to fit another adapter."""


def values_in_space(space: Mapping[str, Range], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as the space has them: a list of module names, as in YAML and JSON, becomes the listed tuple.

    Raises:
        UserError: If parameters or values are outside the space; names all of them.
    """
    faults = enqueue_faults(space, [values])
    if faults:
        raise UserError("; ".join(f"{place.partition('.')[2]} {message}" for place, message in faults))
    return {name: space[name].clip(value) for name, value in values.items()}


def with_budget(config: StudyConfig, changes: Mapping[str, Any]) -> StudyConfig:
    """Return a study with a changed budget; None lifts a limit.

    Raises:
        UserError: If a name or a value is not allowed.
    """
    unknown = [name for name in changes if name not in BUDGET]
    if unknown or not changes:
        raise UserError(f"a budget has {', '.join(BUDGET)}; found {', '.join(unknown) or 'nothing'}")
    for name, value in changes.items():
        if isinstance(value, bool):
            raise UserError(f"{name}: must be a number; found {value}")
    if "slots" in changes and not isinstance(config.executor, PackingExecutorConfig):
        raise UserError("slots: the trials of this study run one at a time (executor inline), so it has no slots")
    data = config.model_dump()
    data["search"].update({name: value for name, value in changes.items() if name != "slots"})
    if "slots" in changes:
        data["executor"]["slots"] = changes["slots"]
    try:
        return StudyConfig.model_validate(data)
    except ValidationError as error:
        faults = {name: _WORDS.get(name, each["msg"]) for each in error.errors() for name in [str(_field(each["loc"]))]}
        raise UserError("; ".join(f"{name}: {message}" for name, message in faults.items())) from error


def _field(place: tuple[int | str, ...]) -> int | str:
    """Return the parameter of a fault, rather than the union's alternative that was tried."""
    return next((part for part in place if part in BUDGET), place[-1])


def budget_of(config: StudyConfig) -> dict[str, Any]:
    """Return a study's limits by name; ``slots`` only if it has any."""
    search = config.search
    found: dict[str, Any] = {name: getattr(search, name) for name in BUDGET if name != "slots"}
    if isinstance(config.executor, PackingExecutorConfig):
        found["slots"] = config.executor.slots
    return found


def obstacle_to_weights(adapter: AnyAdapter, changes: Mapping[str, Any]) -> str | None:
    """Return why a trial with these changes cannot start from the saved weights of another's adapter, or None."""
    if not isinstance(adapter, LowRank):
        return f"only LoRA and QLoRA adapters can start from another trial's weights, and this one is {adapter.kind}"
    if adapter.changes_base:
        return (
            f"with init {adapter.init} the saved weights are the difference to a changed base, of twice the rank; a "
            "trial of this study cannot start from them"
        )
    fixed = {ADAPTER, MODEL, *_SHAPE, *(adapter.options() - {"lora_plus"})}
    changed = [name for name in changes if bare(name) in fixed]
    if changed:
        return f"its weights would not fit, or would mean something else, with a different {', '.join(changed)}"
    return None


def values_of(space: Mapping[str, Range], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trial's values by the space's names, from its resolved parameters.

    A value resolved from another form (such as a multiple of the rank) is found by resolving the listed ones; values
    outside the space are left out.
    """
    resolved = {**(parameters.get("trl") or {}), **parameters}
    found: dict[str, Any] = {}
    for name in in_order(space):
        if not is_active(space[name], found):
            continue
        value = resolved.get(name, resolved.get(bare(name)))
        if bare(name) == "lora_alpha":
            value = _listed_alpha(space[name], value, resolved.get("lora_rank"))
        if space[name].contains(value):
            found[name] = space[name].clip(value)
    return found


def _listed_alpha(range_: Range, value: Any, rank: Any) -> Any:
    """Return the alpha that a space lists for a number, possibly as a multiple of the rank."""
    words = (word for word in listed(range_) if isinstance(word, str))
    return next((word for word in words if isinstance(rank, int) and alpha_value(word, rank) == value), value)


def cloned(space: Mapping[str, Range], values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trial's values with some of them changed, without those that become inactive.

    Raises:
        UserError: If a change is outside the space, or inactive.
    """
    wanted, kept = {**values, **values_in_space(space, changes)}, dict[str, Any]()
    for name in in_order(space):
        if name in wanted and is_active(space[name], kept):
            kept[name] = wanted[name]
    idle = [name for name in changes if name not in kept]
    if idle:
        parents = ", ".join(dict.fromkeys(parent for name in idle for parent in space[name].when))
        raise UserError(f"{', '.join(idle)}: inactive with this configuration's {parents}")
    return kept


def differing(space: Mapping[str, Range], before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that differ in ``after``; None for those it lacks or leaves to the sampler."""
    sampled = {name: None for name, range_ in space.items() if name not in after and is_active(range_, after)}
    changed = {name: after.get(name) for name in space if before.get(name) != after.get(name)}
    return {**changed, **sampled}
