"""Ranking of configurations: trials of equal parameters are one, and its value is their mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from optuna.trial import FrozenTrial, TrialState

from sweeper.config.parameters import ParameterValue
from sweeper.config.space import Range
from sweeper.config.trial import Outcome
from sweeper.search.attributes import INITIAL, KIND, OUTCOME
from sweeper.search.pareto import front
from sweeper.search.space import canonical, read_back
from sweeper.store.records import TrialKind


@dataclass(frozen=True)
class Configuration:
    """A configuration that was trained to its end, with all of its trials.

    Attributes:
        parameters: Values by name, fixed ones included.
        value: Mean of ``values``.
        values: The deciding metric of every complete trial of the configuration, in order of their numbers.
        numbers: Numbers of those trials.
        confirmations: How many of them are confirmations.
        diverged: How many further trials of the configuration diverged.
    """

    parameters: Mapping[str, ParameterValue]
    value: float
    values: tuple[float, ...]
    numbers: tuple[int, ...]
    confirmations: int
    diverged: int

    def best_number(self, direction: Literal["minimize", "maximize"]) -> int:
        """Return the number of the trial that did best; of equals the first."""
        sign = 1.0 if direction == "minimize" else -1.0
        return min(zip(self.values, self.numbers, strict=True), key=lambda pair: (sign * pair[0], pair[1]))[1]


@dataclass(frozen=True)
class FrontPoint:
    """A trial that no other is better than in every objective."""

    number: int
    parameters: Mapping[str, ParameterValue]
    values: tuple[float, ...]


def configurations(
    trials: Iterable[FrozenTrial], space: Mapping[str, Range], *, confirmed: bool = True
) -> list[Configuration]:
    """Return every configuration that has a complete trial; ``confirmed`` says whether confirmations count.

    Trials that start from saved weights are a different configuration from equal ones that start from the base model.
    """
    groups: dict[tuple[str, int | None], list[FrozenTrial]] = {}
    for trial in trials:
        if not confirmed and trial.user_attrs.get(KIND) == TrialKind.CONFIRMATION:
            continue
        groups.setdefault((canonical(trial.params), trial.user_attrs.get(INITIAL)), []).append(trial)
    complete = (
        (group, done) for group in groups.values() if (done := [t for t in group if t.state == TrialState.COMPLETE])
    )
    return [_configuration(group, done, space) for group, done in complete]


def _configuration(group: list[FrozenTrial], done: list[FrozenTrial], space: Mapping[str, Range]) -> Configuration:
    values = tuple(trial.values[0] for trial in done)
    return Configuration(
        parameters=read_back(done[0].params, space),
        value=fmean(values),
        values=values,
        numbers=tuple(trial.number for trial in done),
        confirmations=sum(trial.user_attrs.get(KIND) == TrialKind.CONFIRMATION for trial in done),
        diverged=sum(trial.user_attrs.get(OUTCOME) == Outcome.DIVERGED for trial in group),
    )


def ranked(found: Iterable[Configuration], direction: Literal["minimize", "maximize"]) -> list[Configuration]:
    """Return configurations, best first.

    Confirmed ones come before those that were only seen once, because the best of many single values is lucky; and
    stable ones before any that diverged with another seed. Ties go to the configuration that was found first.
    """
    sign = 1.0 if direction == "minimize" else -1.0
    return sorted(found, key=lambda c: (c.diverged > 0, c.confirmations == 0, sign * c.value, c.numbers[0]))


def contenders(
    trials: Sequence[FrozenTrial],
    space: Mapping[str, Range],
    direction: Literal["minimize", "maximize"],
    k: int,
    *,
    confirm_top: int,
) -> list[Configuration]:
    """Return every configuration that can still be among the best ``k`` when the best ``confirm_top`` are confirmed.

    Confirmations can only move what they confirm: at the worst all of it diverges and falls behind what was seen once.
    """
    found = ranked(configurations(trials, space), direction)
    once = ranked(configurations(trials, space, confirmed=False), direction)[: k + confirm_top]
    may_rise = {configuration.numbers[0] for configuration in once}
    return [
        configuration
        for place, configuration in enumerate(found)
        if place < k or configuration.confirmations or may_rise & set(configuration.numbers)
    ]


def pareto_front(
    trials: Iterable[FrozenTrial], space: Mapping[str, Range], signs: tuple[float, ...]
) -> list[FrontPoint]:
    """Return the complete trials that no other dominates, by their first objective; ``signs`` is -1 to maximise."""
    complete = {trial.number: trial for trial in trials if trial.state == TrialState.COMPLETE}
    losses = {t.number: tuple(s * v for s, v in zip(signs, t.values, strict=True)) for t in complete.values()}
    found = (complete[number] for number in front(losses))
    return [FrontPoint(t.number, read_back(t.params, space), tuple(t.values)) for t in found]
