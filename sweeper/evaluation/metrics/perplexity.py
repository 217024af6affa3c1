"""Loss per token and perplexity, from token losses rather than from text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sweeper.evaluation.metrics.aggregates import FloatArray, per_token, perplexity
from sweeper.evaluation.metrics.base import Metric


class TokenLoss(Metric):
    """Mean negative log-likelihood of a token, in nats: every token weighs the same, whatever row it stands in.

    ``predictions`` are the summed losses of the examples, ``references`` their numbers of tokens.
    """

    description = "Mean negative log-likelihood of a token, in nats."
    prediction_type = "float64"
    reference_type = "int64"

    def statistics(self, predictions: Sequence[float], references: Sequence[int]) -> FloatArray:
        """Return the summed loss and the number of tokens of each example, shape (N, 2)."""
        return np.stack([np.asarray(predictions, np.float64), np.asarray(references, np.float64)], axis=1)

    def aggregate(self, sums_RK: FloatArray, count: int) -> FloatArray:
        """Return the losses per token, shape (R,)."""
        return per_token(sums_RK, count)


class Perplexity(TokenLoss):
    """The exponential of the mean loss of a token (Jelinek et al. 1977): 1 is certainty."""

    description = "The exponential of the mean negative log-likelihood of a token."

    def aggregate(self, sums_RK: FloatArray, count: int) -> FloatArray:
        """Return the perplexities, shape (R,); infinite where the loss is beyond what a float's exponential holds."""
        return perplexity(sums_RK, count)
