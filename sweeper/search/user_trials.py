"""Trials that people ask for while a study runs: queued once, and run before those that the search has queued."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from sweeper.search import attributes as attribute
from sweeper.search.schedule import Entry, is_ordered
from sweeper.store.records import TrialKind


def queue(
    study: optuna.Study,
    seed: int,
    order: int,
    params: Mapping[str, Any],
    *,
    clones: int | None = None,
    initial: int | None = None,
) -> int:
    """Queue a trial unless the order has one already, and return its number.

    The entry carries the order's number, and the storage adds it whole or not at all: a process that dies before it
    reports the order as done finds the entry when it takes the order again.
    """
    trials = study.get_trials(deepcopy=False)
    for trial in trials:
        if trial.user_attrs.get(attribute.ORDER) == order:
            return int(trial.number)
    used = (t.user_attrs[attribute.ORDINAL] for t in trials if t.user_attrs.get(attribute.KIND) == TrialKind.ENQUEUED)
    ordinal = max(used, default=-1) + 1
    entry = Entry(TrialKind.ENQUEUED, ordinal, params, order=order, clones=clones, initial=initial)
    trial_id = entry.put(study, seed)
    return int(study._storage.get_trial(trial_id).number)


def waiting(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Return the ordered trials that wait to run, the first ordered first."""
    return [trial for trial in trials if trial.state == TrialState.WAITING and is_ordered(trial)]


def take(study: optuna.Study, waiting: Iterable[FrozenTrial]) -> optuna.Trial | None:
    """Take the first trial of the queue that no other process takes first; None if there is none left."""
    for trial in waiting:
        try:
            taken = study._storage.set_trial_state_values(trial._trial_id, state=TrialState.RUNNING)
        except UpdateFinishedTrialError:
            continue
        if taken:
            return begun(study, trial._trial_id)
    return None


def begun(study: optuna.Study, trial_id: int) -> optuna.Trial:
    """Return a trial that has just begun, to sample its parameters."""
    study._thread_local.cached_all_trials = None  # as ``ask`` does, so that the sampler sees the present trials
    return optuna.Trial(study, trial_id)
