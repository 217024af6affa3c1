"""The order of trials: starts, then sampled ones, then confirmations of the best; it follows from the trials alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeper.config.evaluation import EvaluationConfig
from sweeper.config.search import GridSampler, SearchConfig
from sweeper.config.space import Range
from sweeper.search import attributes as attribute
from sweeper.search.initial_points import confirmations
from sweeper.search.ranking import Configuration, configurations, ranked
from sweeper.search.samplers.grid_and_sobol import grid
from sweeper.search.seeds import derive_seed
from sweeper.store.records import TrialKind


@dataclass(frozen=True)
class Entry:
    """A trial that waits to run.

    Attributes:
        kind: Why it is run.
        ordinal: Its place among the trials of its kind; its seeds follow from both.
        params: Values as Optuna holds them; what is left out is sampled.
        confirms: The trial it repeats, where it is a confirmation.
        restarts: The interrupted trial it starts again, if any.
        order: The order by which a person asked for it, if any.
        clones: The trial whose configuration, changed by hand, it runs, if any.
        initial: The trial whose saved weights it starts from, if any.
        deaths: How many workers died with it so far.
        system_attrs: What Optuna's sampler keeps with a trial.
    """

    kind: TrialKind
    ordinal: int
    params: Mapping[str, Any] = field(default_factory=dict)
    confirms: int | None = None
    restarts: int | None = None
    order: int | None = None
    clones: int | None = None
    initial: int | None = None
    deaths: int | None = None
    system_attrs: Mapping[str, Any] = field(default_factory=dict)

    def put(self, study: optuna.Study, seed: int, *, state: TrialState = TrialState.WAITING) -> int:
        """Add the entry to ``study`` as a trial, whole or not at all, and return Optuna's key of it.

        WAITING appends it to the queue, RUNNING begins it at once.
        """
        known = {
            attribute.KIND: self.kind.value,
            attribute.ORDINAL: self.ordinal,
            attribute.SEED: derive_seed(seed, "trial", self.kind.value, self.ordinal),
            attribute.CONFIRMS: self.confirms,
            attribute.RESTARTS: self.restarts,
            attribute.ORDER: self.order,
            attribute.CLONES: self.clones,
            attribute.INITIAL: self.initial,
            attribute.DEATHS: self.deaths,
        }
        fixed = {"fixed_params": dict(self.params)} if self.params else {}
        trial = create_trial(
            state=state,
            user_attrs={name: value for name, value in known.items() if value is not None},
            system_attrs={**fixed, **self.system_attrs},
        )
        return int(study._storage.create_new_trial(study._study_id, template_trial=trial))


def counted(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that count against the budget: all but those that were interrupted."""
    return [
        trial
        for trial in trials
        if attribute.KIND in trial.user_attrs and trial.user_attrs.get(attribute.REASON) != attribute.INTERRUPTED
    ]


class Schedule:
    """The order and the bounds of a search."""

    def __init__(
        self, config: SearchConfig, space: Mapping[str, Range], evaluation: EvaluationConfig, seed: int
    ) -> None:
        self._n_trials = config.n_trials
        self._confirm = config.confirm
        self._top = config.confirm_top
        self._space = space
        self._direction = evaluation.direction
        self._confirmations = 0 if evaluation.objectives else confirmations(config)
        self._most_samples = math.inf
        if isinstance(config.sampler, GridSampler):
            self._most_samples = len(grid(space, config.sampler.points, seed))

    def is_over(self, trials: Sequence[FrozenTrial]) -> bool:
        """Return whether the budget of trials has been started."""
        return len(_started(_own(trials))) >= self._n_trials

    def remaining(self, trials: Sequence[FrozenTrial]) -> int:
        """Return how many trials are still to start, at most, ordered ones included."""
        own = _own(trials)
        started = _started(own)
        waiting = len(own) - len(started)
        ordered = len(trials) - len(_started(trials)) - waiting
        left = self._n_trials - len(started)
        samples_left = self._most_samples - _count(started, TrialKind.SAMPLED)
        confirmations_left = self._confirmations - _count(started, TrialKind.CONFIRMATION)
        return int(max(0, min(left, waiting + samples_left + confirmations_left))) + ordered

    def next(self, trials: Sequence[FrozenTrial], spent: float = 0.0) -> Entry | None:
        """Return what to queue after ``trials``, none of them waiting; None where the search has ended or has to wait.

        Confirmations wait until every other trial has ended, because only then is it known what to confirm.

        The last part of the budget confirms, whichever runs out first: trials, or time and epochs (``spent``, 0 to 1).
        """
        sampled, confirmed = _count(trials, TrialKind.SAMPLED), _count(trials, TrialKind.CONFIRMATION)
        sample = Entry(TrialKind.SAMPLED, sampled) if sampled < self._most_samples else None
        searching = len(_own(trials)) - confirmed < self._n_trials - self._confirmations
        ending = spent >= 1 - self._confirm and confirmed < self._confirmations
        if sample and searching and not ending:
            return sample
        if self._confirmations and any(_is_searching(trial) for trial in trials):
            return None
        chosen = self._to_confirm(trials) if self._confirmations else None
        if chosen is None:
            return sample  # nothing to confirm: the rest of the budget searches on
        if confirmed >= self._confirmations:
            return None
        original = next(trial for trial in trials if trial.number == chosen.numbers[0])
        initial = original.user_attrs.get(attribute.INITIAL)
        return Entry(TrialKind.CONFIRMATION, confirmed, original.params, confirms=original.number, initial=initial)

    def _to_confirm(self, trials: Sequence[FrozenTrial]) -> Configuration | None:
        """Return which of the best configurations has the fewest confirmations: round-robin from the best."""
        seen = ranked(configurations(trials, self._space, confirmed=False), self._direction)
        repeated = [trial.user_attrs.get(attribute.CONFIRMS) for trial in trials]
        return min(seen[: self._top], key=lambda found: repeated.count(found.numbers[0]), default=None)


def is_ordered(trial: FrozenTrial) -> bool:
    """Return whether a person asked for the trial while the study ran: it comes on top of the study's own."""
    return attribute.ORDER in trial.user_attrs


def _own(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if not is_ordered(trial)]


def _started(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state != TrialState.WAITING]


def _count(trials: Sequence[FrozenTrial], kind: TrialKind) -> int:
    return sum(trial.user_attrs[attribute.KIND] == kind for trial in trials)


def _is_searching(trial: FrozenTrial) -> bool:
    return bool(trial.state == TrialState.RUNNING and trial.user_attrs[attribute.KIND] != TrialKind.CONFIRMATION)
