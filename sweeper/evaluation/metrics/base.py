"""The contract of a metric, and the metrics that are means or come from losses: numpy alone, so that they load fast."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
"""Shapes are in the names: N examples, K statistics of each, R resamples or sets of examples."""

Aggregate = Callable[[FloatArray, int], FloatArray]
"""Scores, shape (R,), of R sets of examples, from the sums of their statistics, shape (R, K), and their size."""


class Metric(ABC):
    """A metric whose score on any set of examples follows from sums over them.

    That makes corpus metrics such as BLEU as easy to bootstrap, and to compare in pairs, as means: draw examples, add
    up, score. Libraries are imported where they are called, so that stored scores are compared without them.

    Attributes:
        name: The name a study file gives it.
        description: A line about it.
        prediction_type: What it scores, as ``datasets`` calls the type; ``reference_type`` likewise.
        is_mean: Whether the score of a set is the mean over its examples of the first statistic.
    """

    description = ""
    prediction_type = "string"
    reference_type = "string"
    is_mean = False

    def __init__(self, name: str) -> None:
        self.name = name

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


class ExampleMean(Metric):
    """The mean over the examples of a number of each; ``predictions`` are the numbers, ``references`` do not count."""

    description = "The mean of a number that each example has."
    prediction_type = reference_type = "float64"
    is_mean = True

    def statistics(self, predictions: Sequence[Any], references: Sequence[Any]) -> FloatArray:
        """Return the numbers, shape (N, 1)."""
        return np.asarray(predictions, dtype=np.float64).reshape(-1, 1)

    def aggregate(self, sums_RK: FloatArray, count: int) -> FloatArray:
        """Return the means, shape (R,)."""
        means: FloatArray = sums_RK[:, 0] / count
        return means


class MeanMetric(ExampleMean):
    """A metric whose score is the mean of a score per example, computed from two texts."""

    prediction_type = reference_type = "string"

    @abstractmethod
    def example_score(self, prediction: str, reference: str) -> float:
        """Return the score of one example, from 0 to 1."""

    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> FloatArray:
        """Return the score of each example, shape (N, 1)."""
        return super().statistics([self.example_score(*pair) for pair in zip(predictions, references, strict=True)], ())


class TokenLoss(Metric):
    """Mean negative log-likelihood of a token, in nats: every token weighs the same, whatever row it belongs to.

    ``predictions`` are the summed losses of the examples, ``references`` their numbers of tokens.
    """

    description = "Mean negative log-likelihood of a token, in nats."
    prediction_type, reference_type = "float64", "int64"

    def statistics(self, predictions: Sequence[float], references: Sequence[int]) -> FloatArray:
        """Return the summed loss and the number of tokens of each example, shape (N, 2)."""
        return np.stack([np.asarray(predictions, np.float64), np.asarray(references, np.float64)], axis=1)

    def aggregate(self, sums_RK: FloatArray, count: int) -> FloatArray:
        """Return the losses per token, shape (R,)."""
        losses: FloatArray = sums_RK[:, 0] / sums_RK[:, 1]
        return losses


class Perplexity(TokenLoss):
    """The exponential of the mean loss of a token (Jelinek et al. 1977): 1 is certainty."""

    description = "The exponential of the mean negative log-likelihood of a token."

    def aggregate(self, sums_RK: FloatArray, count: int) -> FloatArray:
        """Return the perplexities, shape (R,); infinite where the loss is beyond what a float's exponential holds."""
        with np.errstate(over="ignore"):
            perplexities: FloatArray = np.exp(super().aggregate(sums_RK, count))
        return perplexities
