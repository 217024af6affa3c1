"""Comparison of candidates on the test split, with each other and with their base models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sweeper.config.evaluation import direction
from sweeper.errors import DataError
from sweeper.evaluation.intervals import Interval, paired_interval
from sweeper.evaluation.metrics import load_metric
from sweeper.evaluation.metrics.base import FloatArray
from sweeper.evaluation.scores import Scores
from sweeper.store import Example, ScoreRecord

Verdict = Literal["better", "worse", "undecided"]

BASE = "base model"
"""The name of a study's only base model; of several, each has its own name after these words."""

FEWEST_EXAMPLES = 6
"""With fewer pairs not even a difference on all of them is significant at 5 % (two-sided sign test: 2 * 0.5**5 > 0.05),
while the bootstrap, which knows only these pairs, would be certain."""


@dataclass(frozen=True)
class Difference:
    """The paired difference of two systems on one metric.

    Attributes:
        value: First minus second, in the metric's own units.
        interval: Its bootstrap interval.
        verdict: Of the first.
    """

    value: float
    interval: Interval
    verdict: Verdict


@dataclass(frozen=True)
class Challenge:
    """One step to the winner: a candidate against the best before it, ``holder``; challenger minus holder."""

    holder: str
    challenger: str
    difference: Difference


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        metric: The deciding metric.
        winner: The best candidate.
        beats_base: Whether the winner is better than its base on the deciding metric, with the whole interval.
        to_base: For each candidate and metric, candidate minus its base.
        challenges: The steps to the winner, in order; none if something other than this metric decided.
        base_of: For each candidate, the name of its base.
    """

    metric: str
    winner: str
    beats_base: bool
    to_base: dict[str, dict[str, Difference]]
    challenges: tuple[Challenge, ...]
    base_of: dict[str, str]


def named_bases(base: Scores | Mapping[str, Scores]) -> Mapping[str, Scores]:
    """Return base models by name; a single one needs none."""
    return {BASE: base} if isinstance(base, Scores) else base


def compare(
    candidates: Mapping[str, Scores],
    base: Scores | Mapping[str, Scores],
    metric: str,
    *,
    base_of: Mapping[str, str] | None = None,
    winner: str | None = None,
) -> Comparison:
    """Find the winner among candidates, and whether it beats its base.

    Candidates come in their validation order, best first. A later one overtakes the best so far only if the whole
    interval of its paired difference on the deciding metric is beyond zero; otherwise the validation order holds, so
    the noise of the test split chooses nothing.

    Args:
        candidates: Scores by the candidate's name.
        base: Scores of the base model without adapter, on the same examples; of several, by name.
        metric: The deciding metric.
        base_of: For each candidate the name of its base; may be left out for one base.
        winner: The winner, if something other than this metric decides.

    Raises:
        DataError: If the deciding metric was not measured, or the examples are not the same.
        ValueError: If there is no candidate.
    """
    if not candidates:
        raise ValueError("a comparison needs at least one candidate")
    bases = named_bases(base)
    names = dict(base_of) if base_of is not None else dict.fromkeys(candidates, next(iter(bases)))
    own = {name: bases[names[name]] for name in candidates}
    for name, scores in candidates.items():
        _require_comparable(name, scores, own[name], metric)
    winner, challenges = (winner, ()) if winner is not None else _winner(candidates, metric)
    to_base = {
        name: {each: difference(scores, own[name], each) for each in own[name].metrics}
        for name, scores in candidates.items()
    }
    return Comparison(metric, winner, to_base[winner][metric].verdict == "better", to_base, challenges, names)


def difference(first: Scores, second: Scores, metric: str) -> Difference:
    """Return the paired difference of two systems, first minus second, on one metric."""
    one, other = first.metrics[metric], second.metrics[metric]
    return paired_difference(one.statistics_NK, other.statistics_NK, metric)


def paired_difference(first_NK: FloatArray, second_NK: FloatArray, metric: str) -> Difference:
    """Return the paired difference, first minus second, from two systems' statistics of the same examples."""
    aggregate, count = load_metric(metric).aggregate, len(first_NK)
    interval = paired_interval(first_NK, second_NK, aggregate)
    one, other = (float(aggregate(of.sum(axis=0, keepdims=True), count)[0]) for of in (first_NK, second_NK))
    return Difference(one - other, interval, _verdict(interval, count, metric))


def stored_difference(first: Sequence[Example], second: Sequence[Example], metric: str) -> Difference:
    """Return the paired difference of two systems on a metric, first minus second, from their stored examples.

    Raises as ``paired_statistics`` does.
    """
    return paired_difference(*paired_statistics(first, second, metric), metric)


def paired_statistics(
    first: Sequence[Example], second: Sequence[Example], metric: str
) -> tuple[FloatArray, FloatArray]:
    """Return the statistics of two systems on the same examples, each of shape (N, K).

    Raises:
        DataError: If they were not scored on the same examples, or not with this metric.
    """
    if not first or not second:
        raise DataError("there is nothing to compare: one of the two was not scored on this split")
    if [(e.prompt, e.reference) for e in first] != [(e.prompt, e.reference) for e in second]:
        raise DataError("the two were scored on different examples, so they cannot be compared in pairs")
    return _statistics(first, metric), _statistics(second, metric)


def _winner(candidates: Mapping[str, Scores], metric: str) -> tuple[str, tuple[Challenge, ...]]:
    holder, *others = candidates
    challenges = []
    for challenger in others:
        challenge = Challenge(holder, challenger, difference(candidates[challenger], candidates[holder], metric))
        challenges.append(challenge)
        if challenge.difference.verdict == "better":
            holder = challenger
    return holder, tuple(challenges)


def _verdict(interval: Interval, count: int, metric: str) -> Verdict:
    if count < FEWEST_EXAMPLES or not interval.excludes_zero():
        return "undecided"
    return "better" if (interval.low > 0) == (direction(metric) == "maximize") else "worse"


def _require_comparable(name: str, scores: Scores, base: Scores, metric: str) -> None:
    missing = [each for each in {metric: None, **base.metrics} if each not in scores.metrics]
    if missing or metric not in base.metrics:
        raise DataError(f"{name}: {', '.join(missing) or metric} was not measured on the candidate and on the base")
    if (scores.prompts, scores.references) != (base.prompts, base.references):
        raise DataError(f"{name} and the base were scored on different examples, so they cannot be compared in pairs")


def _statistics(examples: Sequence[Example], metric: str) -> FloatArray:
    """Return the statistics of stored examples, shape (N, K); for a mean, the scores suffice."""
    if all(metric in (example.statistics or {}) for example in examples):
        return np.array([example.statistics[metric] for example in examples if example.statistics], dtype=np.float64)
    if load_metric(metric).is_mean and all(metric in example.scores for example in examples):
        return np.array([[example.scores[metric]] for example in examples], dtype=np.float64)
    raise DataError(f"{metric} was not measured, or was stored by a sweeper that kept too little of it to compare")


def score_rows(scores: Scores, to_base: Mapping[str, Difference]) -> tuple[ScoreRecord, ...]:
    """Return scores as they are stored, with their differences to the base model."""
    rows = []
    for name, metric in scores.metrics.items():
        paired = to_base.get(name)
        own = name, metric.value, metric.interval.low, metric.interval.high
        rows.append(
            ScoreRecord(*own, paired.value, paired.interval.low, paired.interval.high) if paired else ScoreRecord(*own)
        )
    return tuple(rows)
