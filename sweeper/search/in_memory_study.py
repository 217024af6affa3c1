"""Complete trials as Optuna sees a study, in memory: what ``optuna.visualization`` draws."""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweeper.config.evaluation import MEASURES
from sweeper.search.experimental import accept_experimental
from sweeper.store.records import TrialRecord

_DECADE = 10
_DIRECTIONS = {"minimize": StudyDirection.MINIMIZE, "maximize": StudyDirection.MAXIMIZE}


class InMemoryStudy(optuna.Study):
    """A study that is only looked at: its trials are given, with the numbers they have in the database.

    Reading the same from Optuna's own tables takes milliseconds a trial; its charts need no more than this.

    Args:
        trials: Complete trials; those that lack an objective are left out.
        names: The hyperparameters to draw.
        metric: Name of the deciding metric.
        direction: Which way it is better.
        objectives: Further objectives, all to be small.
        text: What a value that is no number is shown as.
    """

    def __init__(
        self,
        trials: Sequence[TrialRecord],
        names: Sequence[str],
        *,
        metric: str,
        direction: str,
        objectives: Sequence[str] = (),
        text: Callable[[Any], str] = str,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = InMemoryStorage()
        directions = [_DIRECTIONS[direction], *(StudyDirection.MINIMIZE for _ in objectives)]
        storage.create_new_study(directions, study_name="picture")
        super().__init__(study_name="picture", storage=storage)
        with accept_experimental():
            self.set_metric_names([metric, *objectives])
        found = {
            name: {t.number: t.parameters[name] for t in trials if t.parameters.get(name) is not None} for name in names
        }
        drawn = {name: _drawn(values, text) for name, values in found.items() if values}
        spaces = {name: _distribution(list(values.values())) for name, values in drawn.items()}
        told = {
            trial.number: [trial.value, *(getattr(trial, MEASURES[name]) for name in objectives)] for trial in trials
        }
        self._drawn = [
            _frozen(trial, told[n], {name: of[n] for name, of in drawn.items() if n in of}, spaces)
            for n, trial in ((trial.number, trial) for trial in trials)
            if None not in told[n]
        ]

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """Return the trials in one of ``states``."""
        chosen = [trial for trial in self._drawn if states is None or trial.state in states]
        return copy.deepcopy(chosen) if deepcopy else chosen

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        return self.get_trials(deepcopy, states)  # what Optuna's own importances call


def _drawn(values: Mapping[int, Any], text: Callable[[Any], str]) -> dict[int, Any]:
    """Return a parameter's values by trial: as they are where all are numbers, else as text."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values.values()):
        return dict(values)
    return {number: text(value) for number, value in values.items()}


def _frozen(
    trial: TrialRecord, values: Sequence[Any], params: dict[str, Any], spaces: Mapping[str, BaseDistribution]
) -> FrozenTrial:
    return FrozenTrial(
        number=trial.number,
        trial_id=trial.number,
        state=TrialState.COMPLETE,
        value=None,
        values=[float(value) for value in values],
        datetime_start=trial.started_at,
        datetime_complete=trial.finished_at or trial.started_at,
        params=params,
        distributions={name: spaces[name] for name in params},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )


def _distribution(values: Sequence[Any]) -> BaseDistribution:
    """Return the range that the values span, logarithmic where they spread over a decade or more."""
    if isinstance(values[0], str):
        return CategoricalDistribution(sorted(set(values)))
    low, high = min(values), max(values)
    log = low > 0 and high >= _DECADE * low
    if all(isinstance(value, int) for value in values):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(float(low), float(high), log=log)
