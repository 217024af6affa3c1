"""Scores of a corpus, not means over its examples: BLEU and chrF by ``sacrebleu``, word error rate by ``jiwer``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from sweeper.evaluation.metrics.base import FloatArray, Metric


class _SacreMetric(Metric):
    """A sacrebleu metric, split at the seam its own bootstrap uses: statistics per segment, score of their sum."""

    @cached_property
    def _corpus(self) -> Any:
        raise NotImplementedError

    @property
    def _sentence(self) -> Any:
        return self._corpus

    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> FloatArray:
        """Return sacrebleu's statistics of each example, shape (N, K)."""
        rows = self._corpus._extract_corpus_statistics(list(predictions), [list(references)])
        return np.array(rows, dtype=np.float64)

    def aggregate(self, sums_RK: FloatArray, count: int) -> FloatArray:
        """Return the corpus scores, shape (R,), divided by 100."""
        return _scores(self._corpus, sums_RK)

    def example_scores(self, statistics_NK: FloatArray) -> FloatArray:
        """Return the sentence scores, shape (N,), divided by 100."""
        return _scores(self._sentence, statistics_NK)


class BLEU(_SacreMetric):
    """BLEU of the corpus, 0 to 1 (Papineni et al. 2002; sacrebleu's 13a tokeniser, exponential smoothing).

    BLEU counts up to four words in a row: a corpus of answers shorter than four words scores 0. Scores of single
    examples leave out the orders an example is too short for (sacrebleu's effective order).
    """

    description = "Corpus BLEU by sacrebleu, divided by 100."

    @cached_property
    def _corpus(self) -> Any:
        import sacrebleu

        return sacrebleu.BLEU(force=True)

    @cached_property
    def _sentence(self) -> Any:
        import sacrebleu

        return sacrebleu.BLEU(effective_order=True, force=True)


class ChrF(_SacreMetric):
    """chrF2 of the corpus, 0 to 1: character n-grams up to 6, recall counted double (Popović 2015, W15-3049)."""

    description = "Corpus chrF2 by sacrebleu, divided by 100."

    @cached_property
    def _corpus(self) -> Any:
        import sacrebleu

        return sacrebleu.CHRF()


class WordErrorRate(Metric):
    """Words to substitute, delete or insert, over the words of all references: 0 is perfect, and it can pass 1.

    The rate of the corpus (McCowan et al. 2004, "On the use of information retrieval measures for speech recognition
    evaluation", section 2), so long references weigh more than short ones. Words are what white space separates; case
    and punctuation count. A reference without words adds its inserted words to the edits.
    """

    description = "Word edits over reference words, of the whole corpus."

    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> FloatArray:
        """Return the word edits and the reference's words of each example, shape (N, 2)."""
        import jiwer

        rows = []
        for prediction, reference in zip(predictions, references, strict=True):
            found = jiwer.process_words(reference, prediction)
            words = found.hits + found.substitutions + found.deletions
            rows.append((found.substitutions + found.deletions + found.insertions, words))
        return np.array(rows, dtype=np.float64).reshape(-1, 2)

    def aggregate(self, sums_RK: FloatArray, count: int) -> FloatArray:
        """Return edits over reference words, shape (R,); over 1 if there is no reference word at all."""
        rates: FloatArray = sums_RK[:, 0] / np.maximum(sums_RK[:, 1], 1)
        return rates


def _scores(metric: Any, sums_RK: FloatArray) -> FloatArray:
    percent = [metric._compute_score_from_stats(sums).score for sums in sums_RK.tolist()]
    return np.minimum(np.array(percent, dtype=np.float64) / 100, 1.0)  # rounding may pass 1
