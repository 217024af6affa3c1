"""ROUGE, through Google's ``rouge_score``."""

from __future__ import annotations

from rouge_score.rouge_scorer import RougeScorer

from sweeper.evaluation.metrics.base import MeanMetric


class Rouge(MeanMetric):
    """Mean F-measure of shared 1-grams (``rouge1``), 2-grams (``rouge2``) or longest common subsequences (``rougeL``).

    Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries". Without stemming, as ``evaluate``'s own module
    has it. The tokeniser of ``rouge_score`` keeps the letters a-z and digits only: texts in other scripts score 0;
    use ``chrf`` for them.
    """

    description = "Mean ROUGE F-measure, without stemming."

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._scorer = RougeScorer([name])

    def example_score(self, prediction: str, reference: str) -> float:
        """Return the F-measure of one example."""
        return float(self._scorer.score(reference, prediction)[self.config_name].fmeasure)
