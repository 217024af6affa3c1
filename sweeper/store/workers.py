"""Worker queries: the processes that run trials of a study, on this machine and on others."""

from __future__ import annotations

import os
from datetime import datetime, timedelta

from sqlalchemy import delete, update

from sweeper.machine import process_started, this_host
from sweeper.retry import retried_methods
from sweeper.store.records import WorkerRecord
from sweeper.store.rows import Queries, now, study_id
from sweeper.store.tables import LeaseRow, WorkerRow


@retried_methods()
class Workers(Queries):
    """The workers of a database."""

    def join(self, study: str, token: str, device: str, *, expires_in_s: float) -> None:
        """Store that this process runs trials of a study on a device, unless that is stored already.

        The ``token`` identifies the worker, and is never used again; it counts as alive for ``expires_in_s``.
        """
        with self._transactions.writing(study) as session:
            key = study_id(session, study)
            if session.get(WorkerRow, token) is None:
                row = WorkerRow(token=token, study_id=key, host=this_host(), pid=os.getpid(), device=device, beat=0)
                row.process_started = process_started(os.getpid()) or 0.0
                row.joined_at = now()
                row.expires_at = now() + timedelta(seconds=expires_in_s)
                session.add(row)

    def beat(self, token: str, *, expires_in_s: float) -> bool:
        """Store a worker's heartbeat; return whether it was still known."""
        values = {"beat": WorkerRow.beat + 1, "expires_at": now() + timedelta(seconds=expires_in_s)}
        with self._transactions.writing(single=True) as session:
            found = session.execute(
                update(WorkerRow).where(WorkerRow.token == token).values(values).returning(WorkerRow.token),
                execution_options={"synchronize_session": False},
            )
            return found.one_or_none() is not None

    def leave(self, token: str) -> None:
        """Forget a worker that has left or died, and all its leases."""
        with self._transactions.writing() as session:
            session.execute(delete(LeaseRow).where(LeaseRow.worker == token))
            session.execute(delete(WorkerRow).where(WorkerRow.token == token))

    def all(self, study: str) -> tuple[WorkerRecord, ...]:
        """Return the workers of a study, including dead ones that are not noticed yet; the first to join first."""
        return self._fetch(WorkerRecord, WorkerRow, study=study, order_by=[WorkerRow.joined_at, WorkerRow.token])

    def alive(self, study: str) -> tuple[WorkerRecord, ...]:
        """Return the workers that seem alive: by their process on this machine, elsewhere by their heartbeat."""
        return tuple(worker for worker in self.all(study) if seems_alive(worker, now()))


def seems_alive(worker: WorkerRecord, at: datetime) -> bool:
    """Return whether a worker is alive, by its process if that is on this machine, else by its last heartbeat."""
    return not is_gone(worker) if worker.host == this_host() else worker.expires_at > at


def is_gone(worker: WorkerRecord) -> bool:
    """Return whether a worker's process was on this machine and has ended; False if it is on another machine."""
    return worker.host == this_host() and process_started(worker.pid) != worker.process_started
