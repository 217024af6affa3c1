"""The trials of a search as Optuna stores them, to compare with sweeper's own records; read-only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.storages import BaseStorage

from sweeper.search.attributes import INTERRUPTED, NOT_BEGUN, REASON
from sweeper.search.storages.open import StorageFaults

State = Literal["waiting", "running", "complete", "pruned", "fail"]


@dataclass(frozen=True)
class StoredTrial:
    """A trial as Optuna has it: its number, its state, and what sweeper keeps with it (``search/attributes.py``)."""

    number: int
    state: State
    attributes: Mapping[str, Any]

    @property
    def was_interrupted(self) -> bool:
        """Whether it was closed because its process had died; if it had begun, it was requeued under another number."""
        return self.state == "fail" and self.attributes.get(REASON) == INTERRUPTED

    @property
    def never_began(self) -> bool:
        """Whether it failed before it was given its values."""
        return str(self.attributes.get(REASON, "")).startswith(NOT_BEGUN)


@StorageFaults()
def stored_trials(name: str, storage: BaseStorage) -> dict[int, StoredTrial] | None:
    """Return the trials of a search by number; None where there is no search of that name."""
    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        return None
    words: dict[str, State] = {
        "WAITING": "waiting",
        "RUNNING": "running",
        "COMPLETE": "complete",
        "PRUNED": "pruned",
        "FAIL": "fail",
    }
    trials = study.get_trials(deepcopy=False)
    return {trial.number: StoredTrial(trial.number, words[trial.state.name], trial.user_attrs) for trial in trials}
