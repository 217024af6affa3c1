"""A study's goal on its metric, and the smallest candidate that meets it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sweeper.config.evaluation import EvaluationConfig, direction


@dataclass(frozen=True)
class Contender:
    """A trial that may meet the goal.

    Attributes:
        number: The trial's number.
        model: Its base model.
        score: Its score on the goal's metric.
        parameters: Weights of base and adapter together; None if unknown.
        latency_ms: Milliseconds per generated token; None if not measured.
    """

    number: int
    model: str
    score: float
    parameters: int | None = None
    latency_ms: float | None = None

    @property
    def size(self) -> tuple[float, float, int]:
        """The sorting key, smallest first: weights, then latency."""
        parameters, latency = (math.inf if x is None else x for x in (self.parameters, self.latency_ms))
        return parameters, latency, self.number


@dataclass(frozen=True)
class GoalResult:
    """The outcome of a goal.

    Attributes:
        metric: The goal's metric.
        goal: The score it asks for.
        split: ``test``, or ``validation`` if only the search measured the metric.
        contenders: The trials considered.
        meets: Numbers of those that meet it, the smallest model first.
        nearest: The number of the best one.
        miss: By how much the best misses the goal; 0 if it meets it.
        seeks_smallest: Whether the smallest that meets it is sought, or only the winner is considered.
    """

    metric: str
    goal: float
    split: str
    contenders: tuple[Contender, ...]
    meets: tuple[int, ...]
    nearest: int
    miss: float
    seeks_smallest: bool

    @property
    def met(self) -> bool:
        """Whether any trial meets it."""
        return bool(self.meets)

    @property
    def smallest(self) -> int | None:
        """The number of the smallest that meets it; None if none does."""
        return self.meets[0] if self.meets else None

    def __str__(self) -> str:
        bound = "at most" if direction(self.metric) == "minimize" else "at least"
        asked = f"{self.metric} of {bound} {self.goal:g} on the {self.split} split"
        best = self._shown(self.nearest)
        if not self.seeks_smallest:
            return f"goal met: {asked}, by {best}" if self.met else f"goal missed by {self.miss:.3g}: {asked}, {best}"
        if self.smallest is None:
            return f"no model meets the goal: {asked}; the nearest, {best}, misses it by {self.miss:.3g}"
        return f"the smallest model that meets the goal ({asked}) is {self._shown(self.smallest)}"

    def _shown(self, number: int) -> str:
        found = next(contender for contender in self.contenders if contender.number == number)
        weights = "" if found.parameters is None else f" with {shown_count(found.parameters)} weights"
        latency = "" if found.latency_ms is None else f" and {found.latency_ms:.3g} ms a token"
        return f"trial {number} ({found.score:.3g}) on {found.model}{weights}{latency}"


def meets(metric: str, score: float, goal: float) -> bool:
    """Return whether a score reaches the goal, in the metric's direction."""
    return score <= goal if direction(metric) == "minimize" else score >= goal


def judge(config: EvaluationConfig, contenders: Sequence[Contender], split: str) -> GoalResult | None:
    """Return the outcome of a study's goal; None if it has none."""
    if config.goal is None:
        return None
    metric, goal = config.metric, config.goal
    meeting = sorted((one for one in contenders if meets(metric, one.score, goal)), key=lambda one: one.size)
    nearest = best_first(metric, contenders)[0]
    miss = 0.0 if meeting else abs(goal - nearest.score)
    numbers = tuple(one.number for one in meeting)
    return GoalResult(metric, goal, split, tuple(contenders), numbers, nearest.number, miss, bool(config.objectives))


def best_first(metric: str, contenders: Sequence[Contender]) -> list[Contender]:
    """Return contenders by score, of equal ones the smaller first; ValueError if there are none."""
    if not contenders:
        raise ValueError("a goal needs at least one contender")
    sign = 1.0 if direction(metric) == "minimize" else -1.0
    return sorted(contenders, key=lambda one: (sign * one.score, one.size))


def to_score(config: EvaluationConfig, front: Sequence[Contender]) -> list[int]:
    """Return which trials of a front to score on the test split, at most ``config.candidates``.

    First, for each model the smallest trial that met the goal on the validation split, smallest model first, so no
    larger model loses its place to another trial of a smaller one; then the best; then the others that met it.
    """
    goal = config.goal
    assert goal is not None
    met = sorted((one for one in front if meets(config.metric, one.score, goal)), key=lambda one: one.size)
    of_each_model = list({one.model: one for one in reversed(met)}.values())
    ordered = [*sorted(of_each_model, key=lambda one: one.size), *best_first(config.metric, front)[:1], *met]
    numbers = dict.fromkeys(one.number for one in [*ordered, *best_first(config.metric, front)])
    return list(numbers)[: config.candidates]


def shown_count(number: int) -> str:
    """Return a number of weights for people: 134.5M."""
    return f"{number / 1e9:.2f}B" if number >= 1e9 else f"{number / 1e6:.1f}M"
