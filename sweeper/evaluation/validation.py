"""What a trial is measured by while it trains, beside its trainer's own loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweeper.config.evaluation import LOSSES, EvaluationConfig
from sweeper.config.rewards import RewardSources
from sweeper.config.technique import Technique
from sweeper.data.splits import read_prepared
from sweeper.evaluation.batching import Progress
from sweeper.evaluation.scorer import Scorer
from sweeper.training.base_model import BaseModel


def task_metric(
    base: BaseModel,
    validation: Path,
    evaluation: EvaluationConfig,
    technique: Technique,
    sources: RewardSources | None = None,
    on_progress: Progress | None = None,
) -> Callable[[Any], dict[str, float]] | None:
    """Return how to measure answers, rankings or rewards on the validation split; None where the loss decides alone.

    Call it while the base stands without an adapter. ``on_progress`` is told of the rows that are done.
    """
    if evaluation.metric in LOSSES and technique.kind == "sft":
        return None
    beside = technique.metrics if technique.kind != "sft" else (evaluation.metric,)
    names = tuple(dict.fromkeys((*(name for name in (evaluation.metric,) if name not in LOSSES), *beside)))
    measured = evaluation.model_copy(update={"metrics": names})
    scorer = Scorer(base, read_prepared(validation), measured, technique, sources)
    return lambda model: {name: metric.value for name, metric in scorer(model, on_progress).metrics.items()}
