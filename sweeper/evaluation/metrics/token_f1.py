"""Token F1 as SQuAD defines it."""

from __future__ import annotations

import re
import string
from collections import Counter

from sweeper.evaluation.metrics.base import MeanMetric

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class TokenF1(MeanMetric):
    """Mean F1 of the words of prediction and reference, as bags (Rajpurkar et al. 2016, arXiv:1606.05250).

    Words are compared as in SQuAD's official script: lower case, ASCII punctuation and English articles removed.
    Where one side has no word left, the score is 1 if the other has none either, else 0 (SQuAD 2.0's rule).
    """

    description = "Mean F1 of the bags of words, normalised as in SQuAD."

    def example_score(self, prediction: str, reference: str) -> float:
        """Return the F1 of the two bags of words."""
        predicted, expected = squad_words(prediction), squad_words(reference)
        if not predicted or not expected:
            return float(predicted == expected)
        shared = (Counter(predicted) & Counter(expected)).total()
        return 2 * shared / (len(predicted) + len(expected))


def squad_words(text: str) -> list[str]:
    """Return the words of a text, normalised as in SQuAD's official script."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()
