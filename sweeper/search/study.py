"""The seam between the executor and Optuna: ask for a configuration, report its progress, tell how it ended."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from sweeper.config.evaluation import MEASURES, EvaluationConfig
from sweeper.config.search import HalvingPruner, SearchConfig
from sweeper.config.space import Range, definite
from sweeper.config.trial import Outcome, TrialResult
from sweeper.errors import StudyStateError
from sweeper.retry import is_retry, retried
from sweeper.search import attributes as attribute
from sweeper.search import user_trials as ordered
from sweeper.search.candidate import Candidate, candidate_of, restarted
from sweeper.search.components import directions, parts_of
from sweeper.search.curves import percent
from sweeper.search.experimental import accept_experimental
from sweeper.search.initial_points import starting_points, within
from sweeper.search.pruners.base import DecidingPruner
from sweeper.search.pruners.halving import EqualProgressHalving
from sweeper.search.samplers.imputation import MEMORY
from sweeper.search.schedule import Entry, Schedule
from sweeper.search.space import read_back, suggest
from sweeper.search.state import SearchState
from sweeper.search.storages.open import StorageFaults
from sweeper.search.storages.transactions import gathered, together
from sweeper.store.records import PruningDecision, TrialKind

log = logging.getLogger(__name__)

# To a sampler, a failed trial is forgotten and a pruned one is a bad one; so diverged and infeasible ones are pruned.
_STATES = {
    Outcome.COMPLETE: TrialState.COMPLETE,
    Outcome.PRUNED: TrialState.PRUNED,
    Outcome.DIVERGED: TrialState.PRUNED,
    Outcome.INFEASIBLE: TrialState.PRUNED,
    Outcome.FAILED: TrialState.FAIL,
}


class Search(SearchState):
    """One study's search in Optuna's storage.

    The storage holds all state, so any process can resume the search, and several may share it: they ask and take over
    trials one at a time (see ``Database.study_lock``), and tell and read at any time. Made by ``create`` or ``open``.
    """

    def __init__(
        self,
        study: optuna.Study,
        config: SearchConfig,
        space: Mapping[str, Range],
        evaluation: EvaluationConfig,
        seed: int,
    ) -> None:
        super().__init__(study, config, space, evaluation)
        self._schedule = Schedule(config, space, evaluation, seed)
        self._pruner = config.pruner
        self._seed = seed
        self._live: dict[int, optuna.Trial] = {}

    @classmethod
    def create(
        cls,
        name: str,
        storage: BaseStorage,
        *,
        config: SearchConfig,
        space: Mapping[str, Range],
        evaluation: EvaluationConfig,
        seed: int,
        known_good: Iterable[Mapping[str, Any]] = (),
    ) -> Search:
        """Create a study, with its known-good configurations waiting to run first.

        ``known_good`` are the preset's proven configurations, clipped into the space.

        Raises:
            StudyStateError: If the storage has a study of that name already.
            UserError: If the user's ``enqueue``, sampler or pruner does not fit.
        """
        space = dict(sorted(space.items()))
        starts = starting_points(config, space, known_good)
        parts = parts_of(config, space, evaluation, seed)
        try:
            study = optuna.create_study(study_name=name, storage=storage, directions=directions(evaluation), **parts)
        except DuplicatedStudyError as error:
            raise StudyStateError(f"the database has a study named {name} already; resume it, or rename") from error
        with accept_experimental():
            study.set_metric_names([evaluation.metric, *evaluation.objectives])
        for ordinal, params in enumerate(starts):
            Entry(TrialKind.ENQUEUED, ordinal, params).put(study, seed)
        return cls(study, config, space, evaluation, seed)

    @staticmethod
    def forget_unbegun(name: str, storage: BaseStorage) -> None:
        """Delete a search without any begun trial, left by a process that died while it created the study."""
        try:
            study = optuna.load_study(study_name=name, storage=storage)
        except KeyError:
            return
        if all(trial.state == TrialState.WAITING for trial in study.get_trials(deepcopy=False)):
            optuna.delete_study(study_name=name, storage=storage)

    @classmethod
    def open(
        cls,
        name: str,
        storage: BaseStorage,
        *,
        config: SearchConfig,
        space: Mapping[str, Range],
        evaluation: EvaluationConfig,
        seed: int,
    ) -> Search:
        """Open a study with the settings it was created with.

        Raises:
            StudyStateError: If the storage has no study of that name.
            UserError: If the sampler or pruner does not fit.
        """
        space = dict(sorted(space.items()))  # random draws go by the order of the names: always the same one
        try:
            study = optuna.load_study(study_name=name, storage=storage, **parts_of(config, space, evaluation, seed))
        except KeyError as error:
            raise StudyStateError(f"the database has no search of a study named {name}; run it first") from error
        return cls(study, config, space, evaluation, seed)

    @StorageFaults()
    def ask(self, spent: float = 0.0) -> Candidate | None:
        """Return the trial to run next; None if the search has ended, or waits for trials that still run.

        Args:
            spent: Part of the budgets other than the number of trials that is used up, 0 to 1.
        """
        trials = self._counted()
        if (trial := ordered.take(self.study, ordered.waiting(trials))) is not None:
            return self._begin(trial) or self.ask(spent)
        if self._schedule.is_over(trials):
            return None
        waiting = [trial for trial in trials if trial.state == TrialState.WAITING]
        if waiting:
            trial = ordered.take(self.study, waiting)  # None if other processes took them all: look again
            return (self._begin(trial) if trial is not None else None) or self.ask(spent)
        entry = self._schedule.next(trials, spent)
        if entry is None:
            return None
        trial_id = entry.put(self.study, self._seed, state=TrialState.RUNNING)
        return self._begin(ordered.begun(self.study, trial_id))

    @StorageFaults()
    def ask_ordered(self) -> Candidate | None:
        """Return the next trial that a person ordered, whatever the budget; None if none waits."""
        while (trial := ordered.take(self.study, ordered.waiting(self._waiting()))) is not None:
            if (candidate := self._begin(trial)) is not None:
                return candidate
        return None

    def _begin(self, trial: optuna.Trial) -> Candidate | None:
        """Give a trial its values; one whose queued values are not of the space fails, and None is returned."""
        try:
            return self._with_values(trial)
        except (KeyError, TypeError, ValueError) as error:
            if not trial._cached_frozen_trial.system_attrs.get("fixed_params"):
                raise  # the sampler is at fault, not what was queued
            log.warning("trial %d cannot begin: %s", trial.number, error)
            with gathered(self.study):
                trial.set_user_attr(attribute.OUTCOME, Outcome.FAILED.value)
                trial.set_user_attr(attribute.REASON, f"{attribute.NOT_BEGUN}: {error}")
            self.study.tell(trial.number, state=TrialState.FAIL)
            self.forget(trial.number)
            return None

    def _with_values(self, trial: optuna.Trial) -> Candidate:
        with gathered(self.study):
            parameters = suggest(trial, self._space)
            self._live[trial.number] = trial
            epochs, ratio = (definite(parameters).get(name) for name in ("epochs", "warmup_ratio"))
            self.plan(
                trial.number,
                length=epochs if isinstance(epochs, int | float) else 1.0,
                warmup_end_percent=100 * ratio if isinstance(ratio, int | float) else 0.0,
            )
        return candidate_of(trial, parameters)

    @StorageFaults()
    def order(
        self, order: int, values: Mapping[str, Any], *, clones: int | None = None, initial: int | None = None
    ) -> int:
        """Queue a trial that a person ordered, once even if called again, and return its number.

        ``values`` are inside the space, by name; what is left out is sampled.
        """
        params = within(self._space, values)
        return ordered.queue(self.study, self._seed, order, params, clones=clones, initial=initial)

    def change_budget(self, config: SearchConfig) -> None:
        """Change the number of trials; the sampler keeps its settings until the study is resumed."""
        self._schedule = Schedule(config, self._space, self._evaluation, self._seed)

    @StorageFaults()
    def plan(self, number: int, *, length: float, warmup_end_percent: float) -> None:
        """Store how long a trial trains (epochs) and where its warmup ends, once its number of steps is known.

        Only trials of equal length are compared, and none is pruned before its warmup has ended.

        Raises:
            StudyStateError: If the trial is not running in this process.
        """
        trial = self._running(number)
        with gathered(self.study):
            _set(trial, attribute.LENGTH, float(length))
            _set(trial, attribute.WARMUP_END_PERCENT, float(warmup_end_percent))

    @StorageFaults()
    def announce(self, number: int, progress: float, value: float) -> None:
        """Store the deciding metric at ``progress`` (0 to 1) without judging the trial by it.

        Trials that are evaluated together are all announced before any of them is judged. A value that is not finite
        is not kept: the trial has diverged, and the trainer reports that.

        Raises:
            StudyStateError: If the trial is not running in this process.
        """
        trial, step = self._running(number), percent(progress)
        judged = not self._evaluation.objectives and math.isfinite(value)
        if judged and step not in trial._cached_frozen_trial.intermediate_values:  # no other process reports on it
            trial.report(value, step)

    @StorageFaults()
    def report(self, number: int, progress: float, value: float) -> PruningDecision | None:
        """Store the deciding metric at ``progress`` (0 to 1) and return the pruner's decision, if it makes one there.

        Confirmations are never pruned, and with several objectives nothing is.

        Raises:
            StudyStateError: If the trial is not running in this process.
        """
        self.announce(number, progress, value)
        trial, step = self._running(number), percent(progress)
        pruner = self.study.pruner
        if self._evaluation.objectives or not math.isfinite(value) or not isinstance(pruner, DecidingPruner):
            return None
        if step >= 100 or trial.user_attrs[attribute.KIND] == TrialKind.CONFIRMATION:
            return None  # at its end a trial has cost all it can
        return pruner.decide(self.study, trial._get_latest_trial())

    @retried  # one transaction
    @StorageFaults()
    def tell(self, number: int, result: TrialResult) -> None:
        """Store how a trial ended. An interrupted or paused one stays open until it is requeued or taken up.

        A complete trial without its deciding metric, or without a further objective, counts as failed.

        Raises:
            StudyStateError: If the trial is not running in this process.
        """
        trial = self._running(number)
        outcome, reason = result.outcome, result.reason
        values = None
        if outcome == Outcome.COMPLETE:
            values = _values(result, self._evaluation)
            missing = [name for name, value in values.items() if value is None or not math.isfinite(value)]
            if missing:
                outcome, reason = Outcome.FAILED, f"the evaluation gave no {' and no '.join(missing)}"
        with together(self.study):
            if not self._is_stored(trial._trial_id, outcome):
                trial.set_user_attr(attribute.EPOCHS, result.epochs_trained)
                trial.set_user_attr(attribute.PAUSED, outcome == Outcome.PAUSED)
                if not outcome.is_open:
                    trial.set_user_attr(attribute.OUTCOME, outcome.value)
                    if reason:
                        trial.set_user_attr(attribute.REASON, reason[:2000])
                    if outcome == Outcome.INFEASIBLE:
                        trial.set_constraint(MEMORY, 1.0)
                    told = list(values.values()) if values and outcome == Outcome.COMPLETE else None
                    self.study.tell(number, told, state=_STATES[outcome])
        del self._live[number]

    @property
    def pauses(self) -> bool:
        """Whether a trial that is too weak is paused instead of pruned, because it may still be promoted."""
        return isinstance(self._pruner, HalvingPruner) and self._pruner.promote

    @StorageFaults()
    def promotable(self) -> list[int]:
        """Return the paused trials that are now among the best at their rung: highest rung first, then the best."""
        if not self.pauses:
            return []
        pruner = self.study.pruner
        assert isinstance(pruner, EqualProgressHalving)
        waiting = [self._frozen(number) for number in self.paused()]
        ordered = sorted((pruner.standing(self.study, trial), trial.number) for trial in waiting)
        return [number for standing, number in ordered if standing.promoted]

    @StorageFaults()
    def paused(self) -> list[int]:
        """Return the numbers of the paused trials."""
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [t.number for t in trials if t.number not in self._live and t.user_attrs.get(attribute.PAUSED)]

    @StorageFaults()
    def interrupted(self) -> list[int]:
        """Return the numbers of the trials that are open in the storage but not running in this process."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial.number for trial in running if trial.number not in self._live]

    @StorageFaults()
    def take_up(self, number: int) -> Candidate:
        """Take over an interrupted or paused trial, to continue it or to tell its result, and return its candidate.

        Raises:
            StudyStateError: If the trial is not open, or is running in this process.
        """
        if number not in self.interrupted():
            raise StudyStateError(f"trial {number} of study {self.study.study_name} was not interrupted")
        trial = self._live[number] = optuna.Trial(self.study, self._frozen(number)._trial_id)
        with gathered(self.study):
            trial.set_user_attr(attribute.PAUSED, False)
            trial.set_user_attr(attribute.EPOCHS, 0.0)  # stored again when it ends; until then it counts as running
        return candidate_of(trial, read_back(trial.params, self._space))

    def forget(self, number: int) -> None:
        """Drop a trial from this process without storing anything: another process has taken it over."""
        self._live.pop(number, None)

    @StorageFaults()
    def count_death(self, number: int, *, checkpoint: int) -> int:
        """Count a worker that died while it ran a trial, and return how many have in a row.

        Args:
            number: The trial.
            checkpoint: Identifies its checkpoint; a new one resets the count.
        """
        old = self._frozen(number)
        stood_still = old.user_attrs.get(attribute.CHECKPOINT, 0) == checkpoint
        deaths = 1 + (int(old.user_attrs.get(attribute.DEATHS, 0)) if stood_still else 0)
        trial = optuna.Trial(self.study, old._trial_id)
        trial.set_user_attr(attribute.DEATHS, deaths)
        trial.set_user_attr(attribute.CHECKPOINT, checkpoint)
        return deaths

    @retried  # one transaction
    @StorageFaults()
    def requeue(self, number: int) -> None:
        """Close an interrupted trial and queue it again: same parameters, seed and kind under a new number.

        Raises:
            StudyStateError: If the trial is not open, or is running in this process.
        """
        old = self._frozen(number)
        if self._is_stored(old._trial_id, Outcome.INTERRUPTED):
            return
        if number not in self.interrupted():
            raise StudyStateError(f"trial {number} of study {self.study.study_name} was not interrupted")
        again = restarted(old, self._space)
        with together(self.study):  # of two processes that do this at once, the second is refused by ``tell``
            if again is not None and not any(
                trial.user_attrs.get(attribute.RESTARTS) == number for trial in self.study.get_trials(deepcopy=False)
            ):
                again.put(self.study, self._seed)
            trial = optuna.Trial(self.study, old._trial_id)
            trial.set_user_attr(attribute.OUTCOME, Outcome.INTERRUPTED.value)
            trial.set_user_attr(attribute.REASON, attribute.INTERRUPTED)
            self.study.tell(number, state=TrialState.FAIL)

    def remaining(self) -> int:
        """Return how many trials are still to start, at most."""
        return self._schedule.remaining(self._counted())

    def _is_stored(self, trial_id: int, outcome: Outcome) -> bool:
        """Return whether an earlier attempt of this call stored this end of a trial, and lost the answer."""
        if not is_retry():
            return False
        return bool(self.study._storage.get_trial(trial_id).user_attrs.get(attribute.OUTCOME) == outcome.value)

    def _running(self, number: int) -> optuna.Trial:
        if number not in self._live:
            raise StudyStateError(f"trial {number} of study {self.study.study_name} is not running in this process")
        return self._live[number]


def _set(trial: optuna.Trial, name: str, value: Any) -> None:
    """Set an attribute of a trial unless it is set so already, which would be another write."""
    if trial._cached_frozen_trial.user_attrs.get(name) != value:
        trial.set_user_attr(name, value)


def _values(result: TrialResult, evaluation: EvaluationConfig) -> dict[str, float | None]:
    """Return the values of a complete trial by objective; None for what it lacks."""
    return {evaluation.metric: result.value} | {name: getattr(result, MEASURES[name]) for name in evaluation.objectives}
