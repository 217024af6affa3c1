"""A space in Optuna's terms: its distributions, and a trial's values by them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from sweeper.config.parameters import ParameterValue
from sweeper.config.space import Choice, Fixed, FloatRange, IntRange, Range, describe, in_order, is_active

Values = dict[str, ParameterValue]


def suggest(trial: optuna.trial.BaseTrial, space: Mapping[str, Range]) -> Values:
    """Return a trial's values by name; a parameter whose ``when`` does not hold is absent.

    Raises:
        ValueError: If the conditions of the space cannot be put in order.
    """

    def draw(name: str, range_: FloatRange | IntRange | Choice) -> Any:
        if isinstance(range_, FloatRange):
            return trial.suggest_float(name, range_.low, range_.high, log=range_.log)
        if isinstance(range_, IntRange):
            return trial.suggest_int(name, range_.low, range_.high, step=range_.step, log=range_.log)
        return decode(range_, trial.suggest_categorical(name, [encode(value) for value in range_.choice]))

    return assemble(space, draw)


def read_back(params: Mapping[str, Any], space: Mapping[str, Range]) -> Values:
    """Return a finished trial's values by name from what Optuna keeps of it."""
    return assemble(space, lambda name, range_: decode(range_, params[name]))


def assemble(space: Mapping[str, Range], draw: Callable[[str, FloatRange | IntRange | Choice], Any]) -> Values:
    """Return values by name, parents first; ``draw`` is asked for each parameter that is active and not fixed.

    Raises:
        ValueError: If the conditions of the space cannot be put in order.
    """
    values: Values = {}
    for name in in_order(space):
        range_ = space[name]
        if is_active(range_, values):
            values[name] = range_.value if isinstance(range_, Fixed) else draw(name, range_)
    return values


def encode(value: Any) -> Any:
    """Return a choice as Optuna's databases can hold it: a list of module names becomes JSON text."""
    return json.dumps(list(value)) if isinstance(value, tuple) else value


def decode(range_: Range, raw: Any) -> Any:
    """Return the value of a parameter from what Optuna holds for it."""
    if isinstance(range_, Choice):
        for value in range_.choice:
            if encode(value) == raw:
                return value
        raise KeyError(f"{raw!r} is not {describe(range_)}")
    return raw


def distributions(space: Mapping[str, Range]) -> dict[str, BaseDistribution]:
    """Return Optuna's distribution of every parameter that is not fixed."""
    return {name: _distribution(range_) for name, range_ in space.items() if not isinstance(range_, Fixed)}


def _distribution(range_: FloatRange | IntRange | Choice) -> BaseDistribution:
    if isinstance(range_, FloatRange):
        return FloatDistribution(range_.low, range_.high, log=range_.log)
    if isinstance(range_, IntRange):
        return IntDistribution(range_.low, range_.high, log=range_.log, step=range_.step)
    return CategoricalDistribution([encode(value) for value in range_.choice])


def is_conditional(space: Mapping[str, Range]) -> bool:
    """Return whether any parameter is searched only under a condition."""
    return any(range_.when and not isinstance(range_, Fixed) for range_ in space.values())


def canonical(values: Mapping[str, ParameterValue]) -> str:
    """Return a text that is equal exactly for equal configurations."""
    return json.dumps(values, sort_keys=True)
