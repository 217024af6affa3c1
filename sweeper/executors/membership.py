"""The workers of one study, as one of them sees the others: who lives, who is dead, and what it holds itself.

A worker says that it lives by counting a number up in the database. The others watch that number with a clock of
their own, which nobody sets: a worker is dead when they have looked several times in the grace period and the number
stood still. The time of day decides nothing, so that it may jump. On the same machine a process that is gone is dead
at once.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from sweeper.errors import DatabaseError
from sweeper.store import SCORING, Database, WorkerRecord
from sweeper.store.workers import is_gone

_LOOKS = 3
"""Looks in the grace period that have to find nothing new: one alone may follow a long sleep of this process."""

_LONGEST_GAP_S = 3.0
"""Looks come every second or more often; after a longer gap, where the grace period is short, they begin anew."""


@dataclass
class _Seen:
    beat: int
    since: float
    looks: int = 0


class HeartbeatMonitor:
    """What one worker has seen of the others' beats.

    Args:
        grace_s: How long a worker may be silent before it is dead.
    """

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._seen: dict[str, _Seen] = {}
        self._looked = time.monotonic()

    def look(self, workers: Iterable[WorkerRecord]) -> set[str]:
        """Take the beats as they are now, and return the tokens of those who are dead."""
        now, seen, dead = time.monotonic(), dict[str, _Seen](), set[str]()
        if now - self._looked > max(self._grace_s / _LOOKS, min(_LONGEST_GAP_S, self._grace_s)):
            self._seen.clear()  # this one slept, or the database was away: then the others could not speak either
        self._looked = now
        for worker in workers:
            before = self._seen.get(worker.token)
            if before is None or before.beat != worker.beat:
                before = _Seen(worker.beat, now)
            before.looks += 1
            seen[worker.token] = before
            silent = before.looks > _LOOKS and now - before.since >= self._grace_s
            if silent or is_gone(worker):
                dead.add(worker.token)
        self._seen = seen
        return dead


class WorkerMembership:
    """This process among the workers of a study: a context manager, in which a thread of its own says that it lives.

    To ``join`` before it is entered.

    Attributes:
        token: What this worker is known by.
        grace_s: How long a worker may be silent before it is dead.
        news: Set when a worker was found dead or has left; whoever looks after that clears it.
    """

    def __init__(self, database: Database, study: str, device: str, grace_s: float) -> None:
        self.token = uuid.uuid4().hex
        self.grace_s = grace_s
        self.news = threading.Event()
        self._database = database
        self._study = study
        self._device = device
        self._watch = HeartbeatMonitor(grace_s)
        self._others: set[str] = set()
        self._dead: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._live, name="sweeper-lease", daemon=True)

    def join(self) -> None:
        """Be known to the others, and see who they are."""
        self._enter()
        self.look()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave: what this worker still holds is free for the others."""
        self._ended.set()
        self._thread.join()
        try:
            self._database.workers.leave(self.token)
        except DatabaseError:
            if error is None:  # otherwise that is what ended this worker, and the others will see that it is gone
                raise

    def look(self) -> set[str]:
        """Look at the others now, and return the tokens of the dead."""
        others = [worker for worker in self._database.workers.all(self._study) if worker.token != self.token]
        dead, present = self._watch.look(others), {worker.token for worker in others}
        if dead - self._dead or self._others - present:
            self.news.set()
        self._dead, self._others = dead, present
        return dead

    def alone(self) -> bool:
        """Tell whether no other worker lives."""
        dead = self.look()
        return not self._others - dead

    def elsewhere(self) -> set[int]:
        """Return what others hold: numbers of trials."""
        leases = self._database.leases.all(self._study)
        return {lease.number for lease in leases if lease.worker != self.token and lease.number != SCORING}

    def _enter(self) -> None:
        self._database.workers.join(self._study, self.token, self._device, expires_in_s=2 * self.grace_s)

    def _live(self) -> None:
        """Say that this worker lives and look at the others, whatever its training does meanwhile."""
        every = self.grace_s / _LOOKS
        beaten = time.monotonic()
        while not self._ended.wait(min(1.0, every)):
            try:
                if time.monotonic() - beaten >= every:
                    if not self._database.workers.beat(self.token, expires_in_s=2 * self.grace_s):
                        self._enter()  # it was thought dead: what it held is another's now, but it can go on with more
                    beaten = time.monotonic()
                self.look()
            except (DatabaseError, OSError):
                continue  # the training comes by the same fault and says so; here it can only be tried again
