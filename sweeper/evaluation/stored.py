"""Systems compared from what the database holds of them, without their weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sweeper.errors import DataError
from sweeper.evaluation.comparison import Difference, paired_difference
from sweeper.evaluation.metrics.aggregates import FloatArray, aggregate_of, mean
from sweeper.store import Example


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
