"""Exact match: the text is the reference, character for character."""

from __future__ import annotations

from sweeper.evaluation.metrics.base import MeanMetric


class ExactMatch(MeanMetric):
    """Share of predictions equal to their reference once white space at both ends is gone.

    Nothing else is forgiven: case, punctuation and inner spaces count. (SQuAD's exact match normalises them; see
    ``token_f1`` for that normalisation.)
    """

    description = "Share of predictions equal to their reference, white space at both ends aside."

    def example_score(self, prediction: str, reference: str) -> float:
        """Return 1 where the texts are equal, else 0."""
        return float(prediction.strip() == reference.strip())
