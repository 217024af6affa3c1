"""A stored study as whoever looks after it needs it: its rows and its search, without its models."""

from __future__ import annotations

from sweeper.search.storages.atomic import AtomicStorage
from sweeper.search.study import Search
from sweeper.store import Database, StudyRecord, stored_config
from sweeper.study.orders import space_of_study


def search_of(study: StudyRecord, storage: AtomicStorage) -> Search:
    """Take up the search of a stored study in Optuna's ``storage``, which takes its time to open.

    Raises:
        StudyStateError: If there is none, or another version of sweeper stored the study.
    """
    config = stored_config(study)
    return Search.open(
        study.name,
        storage,
        config=config.search,
        space=space_of_study(study),
        evaluation=config.evaluation,
        seed=config.seed,
    )


def runs(database: Database, name: str) -> bool:
    """Tell whether a living process runs a study, on this machine or on another."""
    return bool(database.workers.alive(name))
