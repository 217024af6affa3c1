"""Blocks in which what is read and written of a study belongs together, where its storage can do that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import optuna
from optuna.storages._cached_storage import _CachedStorage, _StudyInfo

from sweeper.search.storages.atomic import AtomicStorage


@contextmanager
def together(study: optuna.Study) -> Iterator[None]:
    """Make what is read and written in the block one transaction.

    Optuna keeps what it has read, also of a transaction of which nothing is stored in the end: it is made to forget.
    """
    cache, storage = study._storage, _atomic(study)
    if storage is None or not isinstance(cache, _CachedStorage):
        yield
        return
    known = cache._studies.get(study._study_id, _StudyInfo())
    trials, unfinished, last = dict(known.trials), set(known.unfinished_trial_ids), known.last_finished_trial_id
    try:
        with storage.transaction():
            yield
    except BaseException:
        present = cache._studies.get(study._study_id, _StudyInfo())
        present.trials, present.unfinished_trial_ids, present.last_finished_trial_id = trials, unfinished, last
        raise


def gathered(study: optuna.Study) -> AbstractContextManager[Any]:
    """Return a block whose writes are stored at its end."""
    storage = _atomic(study)
    return nullcontext() if storage is None else storage.gathered()


def _atomic(study: optuna.Study) -> AtomicStorage | None:
    storage = getattr(study._storage, "_backend", None)
    return storage if isinstance(storage, AtomicStorage) else None
