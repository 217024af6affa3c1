"""The sampler and the pruner of a study, as Optuna takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna

from sweeper.config.evaluation import EvaluationConfig
from sweeper.config.search import SearchConfig
from sweeper.config.space import Range
from sweeper.errors import UserError
from sweeper.search.pruners.build import build_pruner
from sweeper.search.samplers.build import build_sampler


def directions(evaluation: EvaluationConfig) -> list[str]:
    """Return what is to be made of each objective, the deciding metric first."""
    return [evaluation.direction, *("minimize" for _ in evaluation.objectives)]


def parts_of(
    config: SearchConfig, space: Mapping[str, Range], evaluation: EvaluationConfig, seed: int
) -> dict[str, Any]:
    """Return the sampler and the pruner of a study, as Optuna's arguments.

    Raises:
        UserError: If one of them does not fit the space or the objectives.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    objectives = 1 + len(evaluation.objectives)
    try:
        sampler = build_sampler(config.sampler, space, n_trials=config.n_trials, objectives=objectives, seed=seed)
        return {"sampler": sampler, "pruner": build_pruner(config.pruner)}
    except ValueError as error:
        raise UserError(f"search: {error}") from error
