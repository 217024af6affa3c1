"""Samplers whose k-th configuration is known in advance: the grid and the Sobol sequence."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import optuna
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial
from scipy.stats import qmc

from sweeper.config.space import Choice, Fixed, FloatRange, IntRange, Range
from sweeper.search.seeds import derive_seed
from sweeper.search.space import encode, read_back

LARGEST_GRID = 100_000
"""Combinations; a larger grid is a mistake."""


class PlannedSampler(BaseSampler):
    """Gives a trial the values of ``plan``, as Optuna holds them."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self._plan = plan

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return nothing: every parameter stands on its own."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return nothing: every parameter stands on its own."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the planned value.

        A started configuration that names some parameters only may need one that its grid point leaves out because
        of a condition: that one is drawn at random.
        """
        if param_name in self._plan:
            return self._plan[param_name]
        fallback = optuna.samplers.RandomSampler(seed=derive_seed(0, param_name, "planned", trial.number))
        return fallback.sample_independent(study, trial, param_name, param_distribution)


def grid(space: Mapping[str, Range], points: int, seed: int) -> list[dict[str, Any]]:
    """Return every combination once, in an order shuffled by ``seed``; ranges are cut into ``points`` values.

    Raises:
        ValueError: If there are more combinations than can be run.
    """
    axes = {name: _cut(range_, points) for name, range_ in space.items() if not isinstance(range_, Fixed)}
    size = math.prod(len(axis) for axis in axes.values())
    if size > LARGEST_GRID:
        raise ValueError(f"the grid has {size} combinations; fix parameters, lower points, or use the qmc sampler")
    combinations: dict[str, dict[str, Any]] = {}
    for combination in product(*axes.values()):
        active = read_back(dict(zip(axes, map(encode, combination), strict=True)), space)
        plan = {name: encode(value) for name, value in active.items() if name in axes}
        combinations[json.dumps(plan, sort_keys=True)] = plan
    plans = list(combinations.values())
    random.Random(seed).shuffle(plans)
    return plans


def _cut(range_: FloatRange | IntRange | Choice, points: int) -> Sequence[Any]:
    if isinstance(range_, Choice):
        return range_.choice
    return list(dict.fromkeys(_at(range_, index / (points - 1)) for index in range(points)))


def sobol(space: Mapping[str, Range], index: int, seed: int) -> dict[str, Any]:
    """Return point ``index`` of the scrambled Sobol sequence in the space."""
    names = [name for name, range_ in space.items() if not isinstance(range_, Fixed)]
    if not names:
        return {}
    engine = qmc.Sobol(len(names), scramble=True, rng=seed)
    if index:
        engine.fast_forward(index)
    point = engine.random(1)[0]
    return {name: encode(_cell(space[name], float(u))) for name, u in zip(names, point, strict=True)}


def _cell(range_: Range, u: float) -> Any:
    """Return the value at ``u`` in [0, 1): each whole number and each choice has an equal cell."""
    if isinstance(range_, Choice):
        return range_.choice[int(u * len(range_.choice))]
    if isinstance(range_, IntRange) and not range_.log:
        return range_.low + range_.step * int(u * ((range_.high - range_.low) // range_.step + 1))
    return _at(range_, u)


def _at(range_: Range, u: float) -> Any:
    """Return the value at ``u`` in [0, 1] of the way from ``low`` to ``high``."""
    assert isinstance(range_, FloatRange | IntRange)
    if range_.log:
        value = math.exp(math.log(range_.low) + u * (math.log(range_.high) - math.log(range_.low)))
    else:
        value = range_.low + u * (range_.high - range_.low)
    return range_.clip(value)
