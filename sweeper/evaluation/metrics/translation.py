"""BLEU and chrF, through ``sacrebleu``: scores of a corpus, not means over its examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import sacrebleu

from sweeper.evaluation.metrics.aggregates import FloatArray, corpus_metric, corpus_scores
from sweeper.evaluation.metrics.base import Metric


class _SacreMetric(Metric):
    """A sacrebleu metric, split at the seam its own bootstrap uses: statistics per segment, score of their sum."""

    _corpus: Any
    _sentence: Any

    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> FloatArray:
        """Return sacrebleu's statistics of each example, shape (N, K)."""
        rows = self._corpus._extract_corpus_statistics(list(predictions), [list(references)])
        return np.array(rows, dtype=np.float64)

    def aggregate(self, sums_RK: FloatArray, count: int) -> FloatArray:
        """Return the corpus scores, shape (R,), divided by 100."""
        return corpus_scores(self._corpus, sums_RK)

    def example_scores(self, statistics_NK: FloatArray) -> FloatArray:
        """Return the sentence scores, shape (N,), divided by 100."""
        return corpus_scores(self._sentence, statistics_NK)


class BLEU(_SacreMetric):
    """BLEU of the corpus, 0 to 1 (Papineni et al. 2002; sacrebleu's 13a tokeniser, exponential smoothing).

    BLEU counts up to four words in a row: a corpus of answers shorter than four words scores 0. Scores of single
    examples leave out the orders an example is too short for (sacrebleu's effective order).
    """

    description = "Corpus BLEU by sacrebleu, divided by 100."

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._corpus = corpus_metric("bleu")
        self._sentence = sacrebleu.BLEU(effective_order=True, force=True)


class ChrF(_SacreMetric):
    """chrF2 of the corpus, 0 to 1: character n-grams up to 6, recall counted double (Popović 2015, W15-3049)."""

    description = "Corpus chrF2 by sacrebleu, divided by 100."

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._corpus = self._sentence = corpus_metric("chrf")
