"""Snapshots of a study's trials, cached; only trials changed since the last one are read."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, TypeVar

import pandas as pd

from sweeper.config.evaluation import METRICS, direction
from sweeper.database_url import Address
from sweeper.store import Database, StudyRecord, TrialRecord
from sweeper_dashboard.data import frames

T = TypeVar("T")

MOST_TRIALS = 200_000
"""Trials cached over all studies; the least recently used studies are dropped first."""


@dataclass(frozen=True)
class Snapshot:
    """A study and its trials at one moment.

    Attributes:
        record: The study.
        trials: Its trials by number, in order.
        made: Results derived from it that are slow to compute.
    """

    record: StudyRecord
    trials: Mapping[int, TrialRecord]
    made: dict[Hashable, Any] = field(default_factory=dict, compare=False)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the result of ``make``, computed once per key."""
        if key not in self.made:
            self.made[key] = make()
        found: T = self.made[key]
        return found

    @property
    def metric(self) -> str:
        """The metric that decides the search."""
        return str((self.record.config.get("evaluation") or {}).get("metric"))

    @property
    def direction(self) -> str:
        """``minimize`` or ``maximize``."""
        return direction(self.metric) if self.metric in METRICS else "maximize"  # a metric of another version

    @cached_property
    def parameters(self) -> pd.DataFrame:
        """The hyperparameters, one row per trial."""
        return frames.hyperparameters(self.trials.values())

    @cached_property
    def varied(self) -> list[str]:
        """Names of the hyperparameters that differ between trials."""
        return frames.varied(self.parameters)

    @cached_property
    def table(self) -> pd.DataFrame:
        """Every trial with its outcome and the hyperparameters that differ."""
        return frames.trials(self.trials.values(), self.parameters, self.varied)

    @cached_property
    def leaders(self) -> pd.DataFrame:
        """Configurations with a completed trial, best first."""
        return frames.leaders(self.table, self.varied, self.direction)


class _Kept:
    """The cached snapshots, shared by all sessions of the server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._snapshots: OrderedDict[tuple[Address, str, datetime], Snapshot] = OrderedDict()

    def of(self, database: Database, record: StudyRecord) -> Snapshot:
        key = database.address, record.name, record.created_at
        with self._lock:
            former = self._snapshots.get(key)
        if former is not None and former.record.changes == record.changes:
            return former
        since, known = (former.record.changes, former.trials) if former is not None else (0, {})
        changed = {trial.number: trial for trial in database.trials.all(record.name, since=since)}
        trials = {**known, **changed}
        if known and not changed.keys() <= known.keys():
            trials = dict(sorted(trials.items()))
        found = Snapshot(record, trials)
        with self._lock:
            self._snapshots[key] = found
            self._snapshots.move_to_end(key)
            while len(self._snapshots) > 1 and sum(len(kept.trials) for kept in self._snapshots.values()) > MOST_TRIALS:
                self._snapshots.popitem(last=False)
        return found


_KEPT = _Kept()


def snapshot(database: Database, record: StudyRecord) -> Snapshot:
    """Return a study with its trials, from the cache if nothing changed since they were read."""
    return _KEPT.of(database, record)
