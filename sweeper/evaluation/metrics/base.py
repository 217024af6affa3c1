"""What all metrics share: statistics per example, and a score that is a function of their sums."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from sweeper.evaluation.metrics.aggregates import FloatArray, mean


class Metric(evaluate.Metric):
    """An ``evaluate`` module whose score on any set of examples follows from sums over them.

    That makes corpus metrics such as BLEU as easy to bootstrap as means: draw examples, add up, score. ``compute``
    works as in every ``evaluate`` module; nothing is read from the network or written to disk.
    """

    description = ""
    prediction_type = "string"
    reference_type = "string"

    def __init__(self, name: str) -> None:
        super().__init__(config_name=name, keep_in_memory=True)

    @abstractmethod
    def statistics(self, predictions: Sequence[Any], references: Sequence[Any]) -> FloatArray:
        """Return the statistics of each example, shape (N, K).

        Raises:
            DataError: If a reference is not what the metric needs.
        """

    @abstractmethod
    def aggregate(self, sums_RK: FloatArray, count: int) -> FloatArray:
        """Return the scores, shape (R,), of R sets of ``count`` examples, given the sums of their statistics."""

    def example_scores(self, statistics_NK: FloatArray) -> FloatArray:
        """Return the score of each example alone, shape (N,)."""
        return self.aggregate(statistics_NK, 1)

    def _info(self) -> evaluate.MetricInfo:
        features = {
            "predictions": datasets.Value(self.prediction_type),
            "references": datasets.Value(self.reference_type),
        }
        return evaluate.MetricInfo(
            description=self.description,
            citation="",
            inputs_description=f"predictions: {self.prediction_type}s; references: {self.reference_type}s",
            features=datasets.Features(features),
        )

    def _build_data_dir(self) -> str:
        """Return no folder: everything is kept in memory, so the cache that ``evaluate`` makes is not needed."""
        return ""

    def _compute(self, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
        statistics_NK = self.statistics(predictions, references)
        score = self.aggregate(statistics_NK.sum(axis=0, keepdims=True), len(statistics_NK))[0]
        return {str(self.config_name): float(score)}


class MeanMetric(Metric):
    """A metric whose score is the mean of a score per example."""

    @abstractmethod
    def example_score(self, prediction: str, reference: str) -> float:
        """Return the score of one example, from 0 to 1."""

    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> FloatArray:
        """Return the score of each example, shape (N, 1)."""
        pairs = zip(predictions, references, strict=True)
        return np.array([[self.example_score(*pair)] for pair in pairs], dtype=np.float64).reshape(-1, 1)

    def aggregate(self, sums_RK: FloatArray, count: int) -> FloatArray:
        """Return the means, shape (R,)."""
        return mean(sums_RK, count)
