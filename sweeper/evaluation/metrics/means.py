"""The mean of a number that each example has, however it was found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sweeper.evaluation.metrics.aggregates import FloatArray, mean
from sweeper.evaluation.metrics.base import Metric


class ExampleMean(Metric):
    """The mean over the examples of a number of each; ``predictions`` are the numbers, ``references`` do not count."""

    description = "The mean of a number that each example has."
    prediction_type = "float64"
    reference_type = "float64"

    def statistics(self, predictions: Sequence[float], references: Sequence[float]) -> FloatArray:
        """Return the numbers, shape (N, 1)."""
        return np.asarray(predictions, dtype=np.float64).reshape(-1, 1)

    def aggregate(self, sums_RK: FloatArray, count: int) -> FloatArray:
        """Return the means, shape (R,)."""
        return mean(sums_RK, count)
