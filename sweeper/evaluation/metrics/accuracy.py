"""Accuracy of labels."""

from __future__ import annotations

from sweeper.evaluation.metrics.base import MeanMetric

_AROUND_WORDS = ".,;:!?\"'`*()[]{}"


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


def label_words(text: str) -> list[str]:
    """Return the words of a text in lower case, without the punctuation around them."""
    return [word.strip(_AROUND_WORDS) or word for word in text.casefold().split()]
