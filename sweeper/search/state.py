"""The state of a search, read from its storage; nothing here changes it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import optuna
from optuna.trial import FrozenTrial, TrialState

from sweeper.config.evaluation import EvaluationConfig
from sweeper.config.parameters import ParameterValue
from sweeper.config.search import SearchConfig
from sweeper.config.space import Range
from sweeper.errors import StudyStateError
from sweeper.search import attributes as attribute
from sweeper.search import user_trials as ordered
from sweeper.search.candidate import Candidate, candidate_of
from sweeper.search.components import directions
from sweeper.search.ranking import Configuration, FrontPoint, configurations, contenders, pareto_front, ranked
from sweeper.search.schedule import counted, is_ordered
from sweeper.search.space import read_back
from sweeper.search.storages.open import StorageFaults


class SearchState:
    """The trials of a study in its storage.

    Attributes:
        study: The study in Optuna's storage.
    """

    def __init__(
        self, study: optuna.Study, config: SearchConfig, space: Mapping[str, Range], evaluation: EvaluationConfig
    ) -> None:
        self.study = study
        self._space = space
        self._evaluation = evaluation
        self._confirm_top = config.confirm_top if config.confirm else 0

    @property
    def space(self) -> Mapping[str, Range]:
        """The resolved space."""
        return self._space

    @StorageFaults()
    def awaits_ordered(self) -> bool:
        """Return whether a trial that a person ordered waits to run."""
        return bool(ordered.waiting(self._waiting()))

    @StorageFaults()
    def values(self, number: int) -> dict[str, ParameterValue]:
        """Return the values of a trial that was begun, by name.

        Raises:
            StudyStateError: If there is no such trial, or it was never given its values.
        """
        trials = self.study.get_trials(deepcopy=False)
        try:
            return read_back(trials[number].params, self._space)
        except (IndexError, KeyError) as error:
            raise StudyStateError(f"study {self.study.study_name!r} has not begun a trial {number}") from error

    @StorageFaults()
    def begun(self, number: int) -> Candidate:
        """Return the candidate of a trial that was begun, in whichever process.

        Raises:
            StudyStateError: If there is no such trial, or it was never given its values.
        """
        return candidate_of(self._frozen(number), self.values(number))

    @StorageFaults()
    def begun_again_as(self, number: int) -> int:
        """Return the number under which a trial was requeued after its process had died; its own if it was not."""
        trials = self.study.get_trials(deepcopy=False)
        again = {trial.user_attrs.get(attribute.RESTARTS): trial.number for trial in trials}
        while number in again:
            number = again[number]
        return number

    @StorageFaults()
    def is_queued(self, number: int) -> bool:
        """Return whether a trial waits to begin."""
        return any(trial.number == number for trial in self._waiting())

    @StorageFaults()
    def planned_epochs(self, numbers: Collection[int]) -> float:
        """Return the epochs that some trials will have trained when they end."""
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return math.fsum(float(t.user_attrs.get(attribute.LENGTH, 0.0)) for t in trials if t.number in numbers)

    def complete(self) -> list[int]:
        """Return the numbers of the complete trials."""
        return [trial.number for trial in self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))]

    def best(self, k: int | None = 1) -> list[Configuration]:
        """Return the best ``k`` configurations (None: all) by the deciding metric, best first, each with its trials."""
        return ranked(configurations(self._counted(), self._space), self._evaluation.direction)[:k]

    @StorageFaults()
    def contenders(self, k: int, *, ended: bool) -> list[int]:
        """Return the trials that may be scored at the end, best first, where that scores ``k`` configurations.

        Args:
            k: How many are scored; with several objectives the whole front may be.
            ended: Whether nothing is left to confirm, which makes the order final.
        """
        if self._evaluation.objectives:
            return [point.number for point in self.front()]
        direction, trials = self._evaluation.direction, self._counted()
        top = self._confirm_top
        found = self.best(k) if ended else contenders(trials, self._space, direction, k, confirm_top=top)
        return [configuration.best_number(direction) for configuration in found]

    @StorageFaults()
    def unfinished(self) -> set[int]:
        """Return the numbers of the trials that wait, run, or are interrupted or paused."""
        states = (TrialState.WAITING, TrialState.RUNNING)
        return {trial.number for trial in self.study.get_trials(deepcopy=False, states=states)}

    @StorageFaults()
    def initials(self) -> dict[int, int]:
        """Return, by its number, the trial whose saved weights a trial starts or started from."""
        trials = self.study.get_trials(deepcopy=False)
        return {t.number: t.user_attrs[attribute.INITIAL] for t in trials if attribute.INITIAL in t.user_attrs}

    def ordered_complete(self) -> list[int]:
        """Return the numbers of the complete trials that people ordered."""
        complete = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return [trial.number for trial in complete if is_ordered(trial)]

    def front(self) -> list[FrontPoint]:
        """Return the trials that no other is better than in every objective."""
        signs = tuple(-1.0 if direction == "maximize" else 1.0 for direction in directions(self._evaluation))
        return pareto_front(self._counted(), self._space, signs)

    @property
    def epochs_spent(self) -> float:
        """Epochs trained so far by all trials, pruned and interrupted ones included."""
        trials = self.study.get_trials(deepcopy=False)
        return math.fsum(float(trial.user_attrs.get(attribute.EPOCHS, 0.0)) for trial in trials)

    def _counted(self) -> list[FrozenTrial]:
        return counted(self.study.get_trials(deepcopy=False))

    def _waiting(self) -> list[FrozenTrial]:
        return list(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _frozen(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]
