"""Progress of a study in other processes, read from the database once a second for the listener here."""

from __future__ import annotations

from collections import defaultdict

from sweeper.config.orders import budget_of
from sweeper.config.study import StudyConfig
from sweeper.config.trial import TrialResult
from sweeper.executors.context import StudyContext
from sweeper.executors.lifecycle.trial_spec import specification
from sweeper.store import EventRecord, TrialRecord, stored_config

_EVENTS = 50
"""The last events are looked at; who writes more of them in a second is not to be read anyway."""

_TOLD_OTHERWISE = frozenset({"budget"})


class Follower:
    """Tells a study's listener of what was stored since it was asked last.

    Trials are told of as they are found: one that began and ended in between begins and ends at once.

    Attributes:
        state: How the study stood when it was looked at last.
    """

    def __init__(self, context: StudyContext) -> None:
        self._context = context
        name = context.config.name
        study = context.database.studies.get(name)
        self.state, self._changes = study.state, study.changes
        self._ended = {record.number: record.finished_at for record in context.database.trials.all(name)}
        self._running: dict[int, int] = {}
        self._told: dict[int, set[str]] = defaultdict(set)
        self._events = self._last_events()

    def look(self) -> None:
        """Tell what is new."""
        context, name = self._context, self._context.config.name
        study = context.database.studies.get(name)
        self.state = study.state
        if study.changes == self._changes:
            return
        self._take_budget(stored_config(study))
        changed = context.database.trials.all(name, since=self._changes)
        self._changes = study.changes  # read before the trials were: what changed in between is looked at once more
        for record in changed:
            self._begin(record)
        self._report([record for record in changed if record.number in self._running])
        for record in changed:
            self._end(record)
        self._tell_events()

    def _take_budget(self, config: StudyConfig) -> None:
        """Go by what a worker was told by people."""
        if budget_of(config) != budget_of(self._context.config):
            self._context.config = config
            self._context.search.change_budget(config.search)
            self._context.listener.budget_changed(config)

    def _begin(self, record: TrialRecord) -> None:
        """Tell of a trial that began, or goes on, since it was looked at last."""
        number = record.number
        if number in self._running or self._is_known_to_have_ended(record):
            return
        candidate = self._context.search.begun(number)
        self._running[number] = record.steps if number in self._ended else 0
        self._context.listener.trial_started(candidate, specification(self._context, candidate), record.total_steps)

    def _end(self, record: TrialRecord) -> None:
        if record.outcome is None or record.number not in self._running:
            return
        self._ended[record.number] = record.finished_at
        del self._running[record.number]
        self._told.pop(record.number, None)
        self._context.listener.trial_ended(_result(record))

    def _is_known_to_have_ended(self, record: TrialRecord) -> bool:
        return record.outcome is not None and self._ended.get(record.number) == record.finished_at

    def _report(self, running: list[TrialRecord]) -> None:
        if not running:
            return
        totals = {record.number: record.total_steps for record in running}
        found: dict[tuple[int, int], dict[str, float]] = defaultdict(dict)
        seen = {number: self._running[number] for number in totals}
        for point in self._context.database.metrics.since(self._context.config.name, seen):
            told = self._told[point.number]
            if point.step > self._running[point.number]:
                told.clear()
                self._running[point.number] = point.step
            if point.name not in told:
                told.add(point.name)
                found[point.number, point.step][point.name] = point.value
        for (number, step), metrics in found.items():
            progress = step / totals[number] if totals[number] else 0.0
            self._context.listener.trial_reported(number, step, {**metrics, "progress": progress})

    def _tell_events(self) -> None:
        events = self._last_events()
        for event in events:
            if event not in self._events and event.kind not in _TOLD_OTHERWISE:
                self._context.listener.note(event.message)
        self._events = events

    def _last_events(self) -> tuple[EventRecord, ...]:
        return self._context.database.events.all(self._context.config.name, limit=_EVENTS)


def _result(record: TrialRecord) -> TrialResult:
    """Return how a trial ended, as the database has it."""
    assert record.outcome is not None
    values = {name: getattr(record, name) for name in TrialResult.model_fields}
    ended = record.finished_at or record.started_at
    return TrialResult(**{**values, "started_at": record.started_at.isoformat(), "finished_at": ended.isoformat()})
