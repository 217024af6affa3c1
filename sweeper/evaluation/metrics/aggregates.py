"""How sums of statistics become a score, for each metric: numpy alone, so that stored scores are compared at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
"""Shapes are in the names: N examples, K statistics of each, R resamples or sets of examples."""

Aggregate = Callable[[FloatArray, int], FloatArray]
"""Scores, shape (R,), of R sets of examples, from the sums of their statistics, shape (R, K), and their size."""


def mean(sums_RK: FloatArray, count: int) -> FloatArray:
    """Return the means of the first statistic."""
    means: FloatArray = sums_RK[:, 0] / count
    return means


def per_token(sums_RK: FloatArray, count: int) -> FloatArray:
    """Return summed losses over numbers of tokens."""
    losses: FloatArray = sums_RK[:, 0] / sums_RK[:, 1]
    return losses


def perplexity(sums_RK: FloatArray, count: int) -> FloatArray:
    """Return the exponentials of the losses per token; infinite beyond what a float's exponential holds."""
    with np.errstate(over="ignore"):
        perplexities: FloatArray = np.exp(per_token(sums_RK, count))
    return perplexities


def corpus_scores(metric: Any, sums_RK: FloatArray) -> FloatArray:
    """Return the scores of a metric of sacrebleu's, divided by 100."""
    percent = [metric._compute_score_from_stats(sums).score for sums in sums_RK.tolist()]
    return np.minimum(np.array(percent, dtype=np.float64) / 100, 1.0)  # rounding may pass 1


@cache
def corpus_metric(name: str) -> Any:
    """Return sacrebleu's BLEU or chrF of a corpus."""
    import sacrebleu

    return sacrebleu.BLEU(force=True) if name == "bleu" else sacrebleu.CHRF()


def aggregate_of(metric: str) -> Aggregate:
    """Return how the sums of a metric's statistics become its score."""
    match metric:
        case "eval_loss" | "kl":
            return per_token
        case "perplexity":
            return perplexity
        case "bleu" | "chrf":
            return lambda sums_RK, count: corpus_scores(corpus_metric(metric), sums_RK)
        case _:
            return mean
