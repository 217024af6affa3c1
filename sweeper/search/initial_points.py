"""The configurations that run first: the user's own, then the preset's known-good ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sweeper.config.search import SearchConfig
from sweeper.config.space import Fixed, Range, enqueue_faults
from sweeper.errors import UserError
from sweeper.search.space import canonical, encode

Params = dict[str, Any]
"""Values as Optuna holds them; what is left out is sampled."""


def starting_points(
    config: SearchConfig, space: Mapping[str, Range], known_good: Iterable[Mapping[str, Any]]
) -> list[Params]:
    """Return the configurations to run first, each once.

    The user's own all run, as far as the budget before confirmation goes. The preset's are clipped into the space
    and join until a third of the trials is spoken for (at least one).

    Raises:
        UserError: If one of the user's own is outside the space.
    """
    faults = enqueue_faults(space, config.enqueue)
    if faults:
        raise UserError("\n".join(f"search.enqueue.{place}: {message}" for place, message in faults))
    chosen = _distinct(within(space, configuration) for configuration in config.enqueue)
    if config.known_good:
        room = max(1, config.n_trials // 3)
        both = _distinct([*chosen, *(clipped(space, configuration) for configuration in known_good)])
        chosen = both[: max(room, len(chosen))]
    return chosen[: config.n_trials - confirmations(config)]


def confirmations(config: SearchConfig) -> int:
    """Return how many of the trials are confirmations."""
    return int(config.n_trials * config.confirm + 1e-9)


def clipped(space: Mapping[str, Range], configuration: Mapping[str, Any]) -> Params:
    """Return the nearest values inside the space; what has none there (text in a range) is left to the sampler."""
    params: Params = {}
    for name, range_ in space.items():
        if name in configuration and not isinstance(range_, Fixed):
            try:
                params[name] = encode(range_.clip(configuration[name]))
            except (TypeError, ValueError):
                continue
    return params


def within(space: Mapping[str, Range], configuration: Mapping[str, Any]) -> Params:
    """Return values of a space as Optuna holds them; what is fixed is left out."""
    return {
        name: encode(space[name].clip(value))
        for name, value in configuration.items()
        if not isinstance(space[name], Fixed)
    }


def _distinct(configurations: Iterable[Params]) -> list[Params]:
    found: dict[str, Params] = {}
    for params in configurations:
        if params:
            found.setdefault(canonical(params), params)
    return list(found.values())
