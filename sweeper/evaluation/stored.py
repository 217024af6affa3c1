"""Scores as the database holds them, and systems compared from that, without their weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from sweeper.errors import DataError
from sweeper.evaluation.comparison import Difference, paired_difference
from sweeper.evaluation.intervals import Interval
from sweeper.evaluation.metrics.aggregates import FloatArray, aggregate_of, mean
from sweeper.evaluation.scores import MetricScore, Scores
from sweeper.store import Example, Score


def score_rows(scores: Scores, to_base: Mapping[str, Difference]) -> tuple[Score, ...]:
    """Return scores as they are stored, each with its difference to the base model where there is one."""
    rows = []
    for name, metric in scores.metrics.items():
        paired = to_base.get(name)
        own = name, metric.value, metric.interval.low, metric.interval.high
        rows.append(Score(*own, paired.value, paired.interval.low, paired.interval.high) if paired else Score(*own))
    return tuple(rows)


def example_rows(scores: Scores) -> Iterator[Example]:
    """Yield the examples of scores as they are stored, with every generated text."""
    for index, reference in enumerate(scores.references):
        yield Example(
            index,
            scores.prompts[index],
            reference,
            scores.predictions[index] if scores.predictions else "",
            {name: metric.examples[index] for name, metric in scores.metrics.items()},
            {name: metric.statistics[index] for name, metric in scores.metrics.items()},
        )


def stored_scores(stored: Sequence[Score], examples: Sequence[Example]) -> Scores | None:
    """Return scores as they were when they were stored; None where too little of them was kept."""
    metrics = {score.metric: metric for score in stored if (metric := _stored_metric(score, examples)) is not None}
    if not examples or not stored or len(metrics) < len(stored):
        return None
    texts = tuple(example.generated for example in examples)
    return Scores(
        metrics=metrics,
        prompts=tuple(example.prompt for example in examples),
        references=tuple(example.reference for example in examples),
        predictions=texts if any(texts) else (),
    )


def _stored_metric(score: Score, examples: Sequence[Example]) -> MetricScore | None:
    name = score.metric
    statistics = [(example.statistics or {}).get(name) for example in examples]
    kept = [tuple(each) for each in statistics if each is not None]
    if score.low is None or score.high is None or len(kept) < len(examples):
        return None
    own = tuple(example.scores[name] for example in examples)
    return MetricScore(score.score, Interval(score.low, score.high), own, tuple(kept))


def stored_difference(first: Sequence[Example], second: Sequence[Example], metric: str) -> Difference:
    """Return the paired difference of two systems on a metric, first minus second, from their stored examples.

    Raises:
        DataError: If they were not scored on the same examples, or not with this metric.
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


def _statistics(examples: Sequence[Example], metric: str) -> FloatArray:
    """Return the statistics of stored examples, shape (N, K); where only scores were kept, a mean needs no more."""
    if all(metric in (example.statistics or {}) for example in examples):
        return np.array([example.statistics[metric] for example in examples if example.statistics], dtype=np.float64)
    if aggregate_of(metric) is mean and all(metric in example.scores for example in examples):
        return np.array([[example.scores[metric]] for example in examples], dtype=np.float64)
    raise DataError(f"{metric} was not measured, or was stored by a sweeper that kept too little of it to compare")
