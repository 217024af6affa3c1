"""CMA-ES without Optuna's pickled state: the generations are told again from the trials themselves."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import optuna
from optuna import Study
from optuna._transform import _SearchSpaceTransform
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

if TYPE_CHECKING:
    import cmaes  # with scipy.stats, a seventh of what starting takes; Optuna imports it where it is asked for

GENERATION = "cma:generation"
"""Where Optuna keeps the generation of a trial, among its system attributes."""


class ReplayedCmaEs(optuna.samplers.CmaEsSampler):
    """Optuna's CMA-ES, its optimizer rebuilt for every trial instead of unpickled from the database.

    A pickle in a database runs whatever it holds, so none is written and none is read. Parameters that are no
    numbers are sampled by TPE, and so is a lone number, which CMA-ES cannot handle.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(
            seed=seed,
            independent_sampler=optuna.samplers.TPESampler(seed=seed, multivariate=False),
            warn_independent_sampling=False,
        )
        self._space: dict[str, BaseDistribution] = {}
        self._sign = 1.0

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the numeric parameters that every trial has; none where there is only one."""
        space: dict[str, BaseDistribution] = super().infer_relative_search_space(study, trial)
        return space if len(space) > 1 else {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the next point of the current generation."""
        self._space = search_space
        self._sign = 1.0 if study.direction == StudyDirection.MINIMIZE else -1.0
        unnumbered = copy.copy(trial)
        unnumbered.number = 0  # the seed is the trial's own already; a restarted trial has another number
        values: dict[str, Any] = super().sample_relative(study, unnumbered, search_space)
        return values

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> cmaes.CMA:
        """Return the optimizer after every full generation among ``completed_trials``."""
        transform = _SearchSpaceTransform(self._space, transform_step=True, transform_0_1=True)
        optimizer = self._init_optimizer(transform, StudyDirection.MINIMIZE)
        while True:
            generation = self._get_solution_trials(completed_trials, optimizer.generation)
            if len(generation) < optimizer.population_size:
                return optimizer
            optimizer.tell(
                [
                    (transform.transform(trial.params), self._sign * trial.values[0])
                    for trial in generation[: optimizer.population_size]
                ]
            )
