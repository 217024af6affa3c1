"""The metrics that ship with sweeper: ``evaluate`` modules that load with no network.

Every score lies between 0 and 1 (BLEU and chrF, which their papers give in percent, are divided by 100), except
``eval_loss``, ``perplexity`` and ``kl``, which begin at 0, 1 and 0 and have no upper end, and margins and rewards,
which have neither.

``METRICS`` names each metric's class without importing it, because importing ``evaluate`` takes seconds.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeper.evaluation.metrics.base import Metric

METRICS: dict[str, str] = {
    "exact_match": "exact_match:ExactMatch",
    "token_f1": "token_f1:TokenF1",
    "accuracy": "accuracy:Accuracy",
    "rouge1": "rouge:Rouge",
    "rouge2": "rouge:Rouge",
    "rougeL": "rouge:Rouge",
    "bleu": "translation:BLEU",
    "chrf": "translation:ChrF",
    "json_validity": "json_fields:JSONValidity",
    "field_match": "json_fields:FieldMatch",
    "eval_loss": "perplexity:TokenLoss",
    "perplexity": "perplexity:Perplexity",
    "preference_accuracy": "means:ExampleMean",
    "preference_margin": "means:ExampleMean",
    "mean_reward": "means:ExampleMean",
    "win_rate": "means:ExampleMean",
    "kl": "perplexity:TokenLoss",
}
"""Where each metric that a study may name is found: the file in this folder and the class in it."""


@cache
def load_metric(name: str) -> Metric:
    """Return a metric by the name a study file gives it.

    Raises:
        KeyError: If no metric has this name.
    """
    file, class_name = METRICS[name].split(":")
    metric: Metric = getattr(import_module(f"{__name__}.{file}"), class_name)(name)
    return metric
