"""A metric as a module of Hugging Face's ``evaluate``; nothing is read from the network or written to disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from sweeper.evaluation.metrics.base import Metric


class EvaluateModule(evaluate.Metric):
    """Gives ``compute(predictions=..., references=...)``, which returns the score by the metric's name."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        super().__init__(config_name=metric.name, keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        predictions, references = self._metric.prediction_type, self._metric.reference_type
        features = {"predictions": datasets.Value(predictions), "references": datasets.Value(references)}
        return evaluate.MetricInfo(
            description=self._metric.description,
            citation="",
            inputs_description=f"predictions: {predictions}s; references: {references}s",
            features=datasets.Features(features),
        )

    def _build_data_dir(self) -> str:
        """Return no folder: everything is kept in memory, so the cache that ``evaluate`` makes is not needed."""
        return ""

    def _compute(self, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
        statistics_NK = self._metric.statistics(predictions, references)
        score = self._metric.aggregate(statistics_NK.sum(axis=0, keepdims=True), len(statistics_NK))[0]
        return {self._metric.name: float(score)}
