"""What several processes do to one storage at once; a file of its own, so that they import little."""

from __future__ import annotations

from multiprocessing.synchronize import Barrier
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState, create_trial

from sweeper.database_url import Address
from sweeper.search.storages.open import open_storage


def change_all(address: Address, state: TrialState, barrier: Barrier, told: Any) -> None:
    """Try to bring every trial into a state, and tell which were accepted."""
    storage = open_storage(address)
    study = optuna.load_study(study_name="s", storage=storage)
    trials = [trial._trial_id for trial in study.get_trials(deepcopy=False)]
    values = [0.5] if state.is_finished() else None
    barrier.wait(300)
    accepted = []
    for trial_id in trials:
        try:
            if storage.set_trial_state_values(trial_id, state, values):
                accepted.append(trial_id)
        except UpdateFinishedTrialError:
            continue  # what is measured: a second end is refused
    told.put(accepted)


def open_new(address: Address, _: TrialState, barrier: Barrier, told: Any) -> None:
    """Open a file that is not there yet, and add a trial; tell what became of it."""
    barrier.wait(300)
    try:
        study = optuna.create_study(study_name="s", storage=open_storage(address), load_if_exists=True)
        study.add_trial(create_trial(state=TrialState.WAITING))
        told.put("opened")
    except Exception as error:
        told.put(repr(error))
