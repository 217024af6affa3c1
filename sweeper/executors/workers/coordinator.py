"""Several workers on one study: started, watched and started again here; about trials they decide among themselves."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from sweeper.config.executor import SharedExecutorConfig
from sweeper.config.pipeline import name_to_resume
from sweeper.errors import DatabaseError, SweeperError, UserError
from sweeper.executors.context import StudyContext
from sweeper.executors.lifecycle.recovery import reclaim
from sweeper.executors.workers.follower import Follower
from sweeper.executors.workers.process import STOPPED, WorkerStatus, user_error
from sweeper.store import StudyState

_GLANCE_S = 0.25
_FOLLOW_S = 1.0
_LEAVE_S = 120.0
"""How long workers have to put their trials on disk after one of them found a fault of the user's."""


class Worker(Protocol):
    """A worker that was started, here or on another machine."""

    def pulse(self) -> WorkerStatus:
        """Return what is known of it, without waiting; its words since the call before are in it once."""

    def ask_to_stop(self) -> None:
        """Ask it to put its trials on disk and leave."""

    def end(self) -> None:
        """End it with all that it started, at once; without harm where it has ended."""


class Fleet(Protocol):
    """Where workers can be."""

    def size(self) -> int:
        """Return how many workers there can be now: the places 0 to ``size() - 1``."""

    def name(self, place: int) -> str:
        """Return what a place is called, for notes."""

    def start(self, place: int) -> Worker | None:
        """Start a worker; None where its device is not free yet, and it is to be tried again soon."""


@dataclass
class _Place:
    """What became of the workers in one place.

    Attributes:
        worker: The one that runs there now.
        failures: How many died there, one after the other, before any trial of theirs had ended.
        ended: Trials that ended in the last one.
        given_up: Why none is started there any more.
        done: Whether the last one had nothing left to do.
        words: How often the last one has said something, and ``since`` when that is so.
        told: Whether it was asked to stop.
        waits: Whether it has not begun, since there is no room for it.
    """

    worker: Worker | None = None
    failures: int = 0
    ended: int = 0
    given_up: str | None = None
    done: bool = False
    words: int = -1
    since: float = field(default_factory=time.monotonic)
    told: bool = False
    waits: bool = False

    @property
    def runs(self) -> bool:
        """Whether a worker runs there."""
        return self.worker is not None and not self.waits

    @property
    def is_vacant(self) -> bool:
        """Whether a worker is to be started there."""
        return self.worker is None and self.given_up is None and not self.done


class Coordinator:
    """Runs a study's trials with the workers of a fleet.

    Args:
        context: The study.
        fleet: Where workers can be.
    """

    def __init__(self, context: StudyContext, fleet: Fleet) -> None:
        executor = context.config.executor
        assert isinstance(executor, SharedExecutorConfig)
        self._context = context
        self._executor = executor
        self._fleet = fleet
        self._places: list[_Place] = []
        self._follower = Follower(context)
        self._followed = 0.0
        self._fault: UserError | None = None
        self._fault_at = 0.0

    def run(self) -> None:
        """Return when no worker has anything left, or all have left because the user asked to stop.

        Raises:
            UserError: If a worker found a fault of the user's; the others have left then.
            SweeperError: If trials are left over and no worker can be kept alive.
        """
        try:
            while self._go_on():
                time.sleep(_GLANCE_S)
        finally:
            for place in self._places:
                if place.worker is not None:
                    place.worker.end()
        self._follower.look()
        if self._fault is not None:
            raise self._fault
        for record in self._context.database.trials.all(self._context.config.name):
            if record.outcome is not None and not record.outcome.is_open:
                self._context.fetch_trial(record.number)  # to be scored here

    def _go_on(self) -> bool:
        """Look at everything once; tell whether any worker runs, or can still be started."""
        if self._leaves:
            self._ask_to_stop()
        else:
            self._fill()
        for number, place in enumerate(self._places):
            if place.worker is not None:
                self._look(number, place, place.worker)
        self._follow()
        if any(place.runs for place in self._places):
            return self._fault is None or time.monotonic() - self._fault_at < _LEAVE_S
        return not self._leaves and not self._is_done()

    @property
    def _leaves(self) -> bool:
        return self._context.stop.is_set or self._fault is not None

    def _fill(self) -> None:
        """Start a worker in every place that has room for one."""
        size = self._fleet.size()
        while len(self._places) < size:
            self._places.append(_Place())
        for number, place in enumerate(self._places[:size]):
            if place.is_vacant and (worker := self._fleet.start(number)) is not None:
                self._places[number] = _Place(worker, failures=place.failures)

    def _is_done(self) -> bool:
        """Tell, with no worker left, whether the study has come to its end; where it has not, let another one begin."""
        done = any(place.done or place.given_up is not None for place in self._places)
        if any(place.is_vacant for place in self._places) or not done:
            return False  # one is to be started, or all wait for room
        if not self._left_over():
            return True
        if not self._context.membership.alone():
            return False  # somebody else's, who joined the study
        again = next((place for place in self._places if place.given_up is None), None)
        if again is None:
            raise SweeperError(
                f"no worker could be kept alive: {self._places[0].given_up}; what was finished is kept, and "
                f"`sweeper resume {name_to_resume(self._context.paths)}` goes on"
            )
        again.done = False  # a worker died after the others had left, and its trials are to be gone on with
        self._count_failure(again, "ended by itself with trials left over")
        return False

    def _left_over(self) -> bool:
        """Put in order what dead workers left; tell whether somebody has to go on with it.

        Twice: the first time it is seen that they have left, and that is no news any more afterwards, which would be
        taken for more to train.
        """
        return reclaim(self._context) + reclaim(self._context) > 0

    def _look(self, number: int, place: _Place, worker: Worker) -> None:
        pulse, name = worker.pulse(), self._fleet.name(number)
        for note in pulse.notes:
            self._context.listener.note(f"{name}: {note}")
        place.ended, place.waits = place.ended + pulse.ended, pulse.waits
        if pulse.exit_code is None:
            if self._is_stalled(place, pulse):
                self._replace(place, f"{name}: no step for {self._executor.stall_timeout_s:g} s")
            return
        worker.end()
        if pulse.fault is not None and self._fault is None:
            self._fault, self._fault_at = user_error(pulse.fault), time.monotonic()
        elif pulse.exit_code == STOPPED and not place.told:
            self._context.stop.set()  # people asked for it, and this worker was the one to hear
        if pulse.exit_code == 0 or self._leaves:
            place.worker, place.done = None, True
        else:
            self._replace(place, f"{name} {pulse.how}", lost=pulse.lost)

    def _is_stalled(self, place: _Place, pulse: WorkerStatus) -> bool:
        """Tell whether a worker that has something to do has been silent for too long; pauses do not count."""
        if pulse.words != place.words or not pulse.busy or self._follower.state is StudyState.PAUSED:
            place.words, place.since = pulse.words, time.monotonic()
        timeout_s = self._executor.stall_timeout_s
        return timeout_s is not None and time.monotonic() - place.since >= timeout_s

    def _replace(self, place: _Place, reason: str, *, lost: bool = False) -> None:
        """End a worker and let another take its place, unless too many died there."""
        assert place.worker is not None
        place.worker.end()
        place.worker = None
        if lost:
            self._context.listener.note(f"{reason}; its trials are gone on with elsewhere")
            return
        self._count_failure(place, reason)
        then = "another one is started" if place.given_up is None else f"so did {place.failures} in a row: no other is"
        self._context.listener.note(f"{reason}; {then}")

    def _count_failure(self, place: _Place, reason: str) -> None:
        place.failures = 1 if place.ended else place.failures + 1
        if place.failures > self._executor.max_restarts:
            place.given_up = reason

    def _ask_to_stop(self) -> None:
        for place in self._places:
            if place.worker is not None and not place.told:
                place.told = True
                place.worker.ask_to_stop()

    def _follow(self) -> None:
        if time.monotonic() - self._followed >= _FOLLOW_S:
            self._followed = time.monotonic()
            with suppress(DatabaseError):  # workers come by the same fault, and say so where it lasts
                self._follower.look()
