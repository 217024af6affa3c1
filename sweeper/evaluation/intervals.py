"""Bootstrap confidence intervals of a metric, and of the difference of two systems on the same examples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sweeper.evaluation.metrics.base import Aggregate, FloatArray

RESAMPLES = 2000
LEVEL = 0.95
_CELLS = 4_000_000  # of the matrix of draws, 32 MB


@dataclass(frozen=True)
class Interval:
    """A confidence interval, both ends included.

    Attributes:
        low: Lower end.
        high: Upper end.
        level: Share of such intervals that hold the true value.
    """

    low: float
    high: float
    level: float = LEVEL

    def excludes_zero(self) -> bool:
        """Return whether zero lies outside."""
        return self.low > 0 or self.high < 0


def score_interval(statistics_NK: FloatArray, aggregate: Aggregate, *, level: float = LEVEL, seed: int = 0) -> Interval:
    """Return the percentile bootstrap interval of a metric.

    Draws as many examples as there are, with replacement, 2,000 times, adds up their statistics, scores each sum, and
    takes the quantiles of the scores (Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13).
    Examples are drawn, not scores, so a corpus metric such as BLEU is scored on every resample as on a corpus.

    The same seed draws the same examples. ``aggregate`` returns the score of sums of statistics.

    Raises:
        ValueError: If there is no example.
    """
    return _percentiles(_resampled(statistics_NK, aggregate, seed), level)


def paired_interval(
    candidate_NK: FloatArray, base_NK: FloatArray, aggregate: Aggregate, *, level: float = LEVEL, seed: int = 0
) -> Interval:
    """Return the percentile bootstrap interval of candidate minus base.

    Both systems are scored on the same drawn examples, so how hard the examples are cancels out (Koehn 2004,
    "Statistical Significance Tests for Machine Translation Evaluation", W04-3250).

    Raises:
        ValueError: If there is no example, or the systems have different numbers of them.
    """
    return _percentiles(_differences(candidate_NK, base_NK, aggregate, seed), level)


def paired_p_value(candidate_NK: FloatArray, base_NK: FloatArray, aggregate: Aggregate, *, seed: int = 0) -> float:
    """Return the two-sided bootstrap p-value of no difference, on the draws of ``paired_interval``.

    Twice the smaller share of resampled differences on either side of zero, zero itself on both: the level at which
    the percentile interval would just touch zero (Efron and Tibshirani 1993, section 15.4). One is added to both counts
    (Davison and Hinkley 1997, "Bootstrap Methods and their Application", section 4.2), so it is never 0. Raises as
    ``paired_interval`` does.
    """
    differences_R = _differences(candidate_NK, base_NK, aggregate, seed)
    if np.isnan(differences_R).any():  # of infinite perplexities
        return 1.0
    smaller = min((differences_R <= 0).sum(), (differences_R >= 0).sum())
    return min(1.0, 2 * (1 + int(smaller)) / (1 + len(differences_R)))


def _differences(candidate_NK: FloatArray, base_NK: FloatArray, aggregate: Aggregate, seed: int) -> FloatArray:
    """Return candidate minus base on every resample, shape (R,); NaN between two infinite perplexities."""
    if candidate_NK.shape != base_NK.shape:
        raise ValueError(f"a paired difference needs the same examples; found {len(candidate_NK)} and {len(base_NK)}")
    with np.errstate(invalid="ignore"):
        return _resampled(candidate_NK, aggregate, seed) - _resampled(base_NK, aggregate, seed)


def _resampled(statistics_NK: FloatArray, aggregate: Aggregate, seed: int) -> FloatArray:
    """Return the scores of all resamples, shape (R,): the same seed and N give the same draws."""
    count = len(statistics_NK)
    if count == 0:
        raise ValueError("an interval needs at least one example")
    if RESAMPLES * count <= _CELLS:
        return aggregate(_draws(count, RESAMPLES, seed) @ statistics_NK, count)
    rng = np.random.default_rng(seed)
    chunk = max(1, _CELLS // count)
    sums = []
    for start in range(0, RESAMPLES, chunk):
        draws_RN = rng.multinomial(count, np.full(count, 1 / count), size=min(chunk, RESAMPLES - start))
        sums.append(draws_RN.astype(np.float64) @ statistics_NK)
    return aggregate(np.concatenate(sums), count)


@lru_cache(maxsize=2)
def _draws(count: int, resamples: int, seed: int) -> FloatArray:
    """Return how often each example is drawn in each resample, shape (R, N): kept for the next metric or system."""
    draws_RN = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    return draws_RN.astype(np.float64)


def _percentiles(scores_R: FloatArray, level: float) -> Interval:
    tail = (1 - level) / 2
    low, high = np.quantile(scores_R, [tail, 1 - tail])
    return Interval(float(low), float(high), level)
