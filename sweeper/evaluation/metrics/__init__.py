"""The metrics that ship with sweeper; each is an ``evaluate`` module too, which loads with no network.

Scores lie between 0 and 1 (BLEU and chrF, which their papers give in percent, are divided by 100), except those of
``config.evaluation.UNBOUNDED``.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import evaluate

    from sweeper.evaluation.metrics.base import Metric

METRICS: dict[str, str] = {
    "exact_match": "texts:ExactMatch",
    "token_f1": "texts:TokenF1",
    "accuracy": "texts:Accuracy",
    "rouge1": "texts:Rouge",
    "rouge2": "texts:Rouge",
    "rougeL": "texts:Rouge",
    "bleu": "corpus:BLEU",
    "chrf": "corpus:ChrF",
    "wer": "corpus:WordErrorRate",
    "json_validity": "json_fields:JSONValidity",
    "field_match": "json_fields:FieldMatch",
    "eval_loss": "base:TokenLoss",
    "perplexity": "base:Perplexity",
    "preference_accuracy": "base:ExampleMean",
    "preference_margin": "base:ExampleMean",
    "mean_reward": "base:ExampleMean",
    "win_rate": "base:ExampleMean",
    "kl": "base:TokenLoss",
}
"""The file in this folder and the class in it of every metric that a study may name."""


@cache
def load_metric(name: str) -> Metric:
    """Return a metric by the name a study file gives it.

    Raises:
        KeyError: If no metric has this name.
    """
    file, class_name = METRICS[name].split(":")
    metric: Metric = getattr(import_module(f"{__name__}.{file}"), class_name)(name)
    return metric


def evaluate_module(name: str) -> evaluate.Metric:
    """Return a metric as a module of ``evaluate``."""
    from sweeper.evaluation.metrics.hub_module import EvaluateModule

    return EvaluateModule(load_metric(name))
