"""The scores of one model on one set of examples, as plain data that a database can keep."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sweeper.evaluation.intervals import Interval
from sweeper.evaluation.metrics.aggregates import FloatArray


@dataclass(frozen=True)
class MetricScore:
    """One metric of one model.

    Attributes:
        value: The score over all examples.
        interval: Its bootstrap interval.
        examples: The score of each example alone.
        statistics: What the score is computed from: one row per example, see ``metrics.base.Metric``.
    """

    value: float
    interval: Interval
    examples: tuple[float, ...]
    statistics: tuple[tuple[float, ...], ...]

    @property
    def statistics_NK(self) -> FloatArray:
        """The statistics as an array."""
        return np.array(self.statistics, dtype=np.float64)


@dataclass(frozen=True)
class Scores:
    """All metrics of one model, with the texts they were computed on; ``dataclasses.asdict`` gives plain data.

    Attributes:
        metrics: Scores by the metric's name, in the order the study names them.
        prompts: What the model was given, readable; empty texts where the rows have no prompt.
        references: The right answers, white space at both ends removed.
        predictions: The generated answers, likewise; empty where no metric needed text.
    """

    metrics: dict[str, MetricScore]
    prompts: tuple[str, ...]
    references: tuple[str, ...]
    predictions: tuple[str, ...]
