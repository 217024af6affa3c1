"""A study seen through a filter: what samplers and pruners of Optuna compare with."""

from __future__ import annotations

import copy
from collections.abc import Container
from typing import Any

from optuna import Study
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState


class StudyView:
    """A study with its trials replaced; everything else is the study's own."""

    def __init__(self, study: Study, trials: list[FrozenTrial]) -> None:
        self._study = study
        self._trials = trials

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        """Return the trials in one of ``states``, in order of their numbers."""
        chosen = [trial for trial in self._trials if states is None or trial.state in states]
        return copy.deepcopy(chosen) if deepcopy else chosen

    _get_trials = get_trials  # what Optuna's own samplers call

    @property
    def best_trial(self) -> FrozenTrial:
        """Return the best complete trial.

        Raises:
            ValueError: If none is complete.
        """
        complete = self.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not complete:
            raise ValueError("No trials are completed yet.")
        choose = max if self._study.direction == StudyDirection.MAXIMIZE else min
        return choose(complete, key=lambda trial: trial.values[0])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)
