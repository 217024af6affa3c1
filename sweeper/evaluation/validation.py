"""The deciding metric on generated text, measured while a trial trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweeper.config.evaluation import LOSSES, EvaluationConfig
from sweeper.data.splits import read_prepared
from sweeper.evaluation.scoring import score


def task_metric(config: EvaluationConfig, validation: Path, tokenizer: Any) -> Callable[[Any], dict[str, float]] | None:
    """Return how to measure the deciding metric of a model on the validation split; None where the loss decides."""
    if config.metric in LOSSES:
        return None
    rows = read_prepared(validation)
    deciding = config.model_copy(update={"metrics": (config.metric,)})
    return lambda model: {config.metric: score(model, tokenizer, rows, deciding).metrics[config.metric].value}
