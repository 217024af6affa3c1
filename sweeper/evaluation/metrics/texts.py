"""Means of a score per text: exact match, accuracy of labels, token F1 as SQuAD defines it, and ROUGE."""

from __future__ import annotations

import re
import string
from collections import Counter
from functools import cached_property
from typing import Any

from sweeper.evaluation.metrics.base import MeanMetric

_AROUND_WORDS = ".,;:!?\"'`*()[]{}"
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class ExactMatch(MeanMetric):
    """Share of predictions equal to their reference once white space at both ends is gone.

    Nothing else is forgiven: case, punctuation and inner spaces count. (SQuAD's exact match normalises them; see
    ``token_f1`` for that normalisation.)
    """

    description = "Share of predictions equal to their reference, white space at both ends aside."

    def example_score(self, prediction: str, reference: str) -> float:
        """Return 1 where the texts are equal, else 0."""
        return float(prediction.strip() == reference.strip())


class Accuracy(MeanMetric):
    """Share of predictions that begin with their reference, word by word: for answers that are labels.

    Words are compared in lower case, without punctuation around them. What follows the label does not count, because
    a model may well explain its answer: "Positive. The film ..." has the label "positive". So a label that begins
    another one ("very" and "very good") is not told apart from it; use ``exact_match`` for such labels. Signs and
    symbols that may carry meaning stay: "-5" is not "5".
    """

    description = "Share of predictions whose first words are the reference label."

    def example_score(self, prediction: str, reference: str) -> float:
        """Return 1 where the prediction begins with the label, else 0."""
        label, words = label_words(reference), label_words(prediction)
        return float(words[: len(label)] == label) if label else float(not words)


class TokenF1(MeanMetric):
    """Mean F1 of the words of prediction and reference, as bags (Rajpurkar et al. 2016, arXiv:1606.05250).

    Words are compared as in SQuAD's official script: lower case, ASCII punctuation and English articles removed.
    If one side has no word left, the score is 1 if the other has none either, else 0 (SQuAD 2.0's rule).
    """

    description = "Mean F1 of the bags of words, normalised as in SQuAD."

    def example_score(self, prediction: str, reference: str) -> float:
        """Return the F1 of the two bags of words."""
        predicted, expected = squad_words(prediction), squad_words(reference)
        if not predicted or not expected:
            return float(predicted == expected)
        shared = (Counter(predicted) & Counter(expected)).total()
        return 2 * shared / (len(predicted) + len(expected))


class Rouge(MeanMetric):
    """Mean F-measure of shared 1-grams (``rouge1``), 2-grams (``rouge2``) or longest common subsequences (``rougeL``).

    Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", through Google's ``rouge_score``. Without
    stemming, as in ``evaluate``'s own module. The tokeniser of ``rouge_score`` keeps the letters a-z and digits only:
    texts in other scripts score 0; use ``chrf`` for them.
    """

    description = "Mean ROUGE F-measure, without stemming."

    @cached_property
    def _scorer(self) -> Any:
        from rouge_score.rouge_scorer import RougeScorer

        return RougeScorer([self.name])

    def example_score(self, prediction: str, reference: str) -> float:
        """Return the F-measure of one example."""
        return float(self._scorer.score(reference, prediction)[self.name].fmeasure)


def label_words(text: str) -> list[str]:
    """Return the words of a text in lower case, without the punctuation around them."""
    return [word.strip(_AROUND_WORDS) or word for word in text.casefold().split()]


def squad_words(text: str) -> list[str]:
    """Return the words of a text, normalised as in SQuAD's official script."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()
