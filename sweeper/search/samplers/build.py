"""The sampler of a study file, as one that continues where a stopped search left off.

Optuna's samplers carry a random state from trial to trial, in memory. ``RepeatableSampler`` builds a fresh one for
every trial instead, seeded by the study's seed and the trial's place among its kind. So the same seed and the same
results so far give the same next configuration, whether the process is the first or the fifth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, assert_never

import optuna
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from sweeper.config.search import (
    AutoSampler,
    CmaEsSampler,
    GPSampler,
    GridSampler,
    NamedSampler,
    QMCSampler,
    RandomSampler,
    Sampler,
    TPESampler,
)
from sweeper.config.space import Range
from sweeper.search.attributes import KIND, ORDINAL
from sweeper.search.experimental import accept_experimental
from sweeper.search.samplers.cmaes import ReplayedCmaEs
from sweeper.search.samplers.grid_and_sobol import PlannedSampler, grid, sobol
from sweeper.search.samplers.imputation import with_pruned_judged
from sweeper.search.seeds import derive_seed
from sweeper.search.space import is_conditional
from sweeper.search.study_view import StudyView

GP_TRIALS = 100
"""Above this many trials a Gaussian process costs more time per trial than it saves."""

Build = Callable[[int, int], BaseSampler]
"""Makes Optuna's sampler for one trial from a seed and the trial's ordinal."""


class RepeatableSampler(BaseSampler):
    """Samples every trial with a fresh sampler, seeded by the trial's kind and ordinal.

    Args:
        build: Makes the sampler of one trial.
        seed: The study's seed.
        judged: Whether the sampler is shown pruned and infeasible trials with imputed values (see ``imputation``),
            because it would otherwise see only complete trials.
    """

    def __init__(self, build: Build, seed: int, *, judged: bool = False) -> None:
        self._build = build
        self._seed = seed
        self._judged = judged
        self._current: tuple[int, BaseSampler] | None = None

    def _of(self, trial: FrozenTrial) -> BaseSampler:
        if self._current is None or self._current[0] != trial.number:
            kind, ordinal = str(trial.user_attrs.get(KIND, "")), int(trial.user_attrs.get(ORDINAL, trial.number))
            with accept_experimental():
                sampler = self._build(derive_seed(self._seed, "sampler", kind, ordinal), ordinal)
            self._current = (trial.number, sampler)
        return self._current[1]

    def _seen(self, study: Study) -> Any:
        if not self._judged:
            return study
        return StudyView(study, with_pruned_judged(study.get_trials(deepcopy=False), study.directions))

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the parameters that are sampled together."""
        space: dict[str, BaseDistribution] = self._of(trial).infer_relative_search_space(self._seen(study), trial)
        return space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the values of the parameters that are sampled together."""
        values: dict[str, Any] = self._of(trial).sample_relative(self._seen(study), trial, search_space)
        return values

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the value of one parameter."""
        return self._of(trial).sample_independent(self._seen(study), trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Do nothing: what a sampler must know of finished trials is in the storage."""


def build_sampler(
    config: Sampler, space: Mapping[str, Range], *, n_trials: int, objectives: int, seed: int
) -> RepeatableSampler:
    """Return the sampler of a study.

    Raises:
        ValueError: If the sampler cannot handle several objectives.
    """
    named = resolve(config, space, n_trials=n_trials, objectives=objectives)
    if isinstance(named, CmaEsSampler) and objectives > 1:
        raise ValueError("the cmaes sampler handles one objective only; use tpe, gp, random, qmc or grid")
    judged = isinstance(named, GPSampler | CmaEsSampler)
    return RepeatableSampler(_build(named, space, seed), seed, judged=judged)


def _build(named: NamedSampler, space: Mapping[str, Range], seed: int) -> Build:
    match named:
        case GPSampler():
            return _gp(named.startup_trials)
        case TPESampler():
            return _tpe(named.startup_trials, group=is_conditional(space))
        case CmaEsSampler():
            return _cmaes
        case GridSampler():
            points = grid(space, named.points, seed)
            return lambda _, ordinal: PlannedSampler(points[ordinal % len(points)])
        case QMCSampler():
            return lambda _, ordinal: PlannedSampler(sobol(space, ordinal, seed))
        case RandomSampler():
            return lambda trial_seed, _: optuna.samplers.RandomSampler(seed=trial_seed)
        case _:
            assert_never(named)


def resolve(config: Sampler, space: Mapping[str, Range], *, n_trials: int, objectives: int) -> NamedSampler:
    """Return the sampler that ``auto`` stands for in this study; any other unchanged.

    The rule follows ``tests/benchmarks/search.py``: with halving, GP and TPE are level for some 20 trials' worth of
    epochs and GP is ahead from 40 on, on spaces of numbers and on spaces with choices alike. GP cannot model
    parameters that only some trials have.
    """
    if not isinstance(config, AutoSampler):
        return config
    if objectives == 1 and n_trials <= GP_TRIALS and not is_conditional(space):
        return GPSampler()
    return TPESampler()


def _gp(startup_trials: int) -> Build:
    def build(seed: int, _: int) -> BaseSampler:
        return optuna.samplers.GPSampler(
            seed=seed,
            n_startup_trials=startup_trials,
            independent_sampler=optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=startup_trials, multivariate=False
            ),
            warn_independent_sampling=False,
        )

    return build


def _tpe(startup_trials: int, *, group: bool) -> Build:
    def build(seed: int, _: int) -> BaseSampler:
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=startup_trials, multivariate=True, group=group, constant_liar=True
        )

    return build


def _cmaes(seed: int, _: int) -> BaseSampler:
    return ReplayedCmaEs(seed)
