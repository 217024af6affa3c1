"""Questions about workers: the processes that run trials of a study, on this machine and on others."""

from __future__ import annotations

import os
import socket
from datetime import datetime, timedelta
from functools import cache
from hashlib import sha256
from pathlib import Path

import psutil
from sqlalchemy import delete, select, update

from sweeper.store.connection import Sessions
from sweeper.store.records import Worker
from sweeper.store.rows import columns, now, study_id
from sweeper.store.tables import LeaseRow, WorkerRow


class Workers:
    """The workers of a database."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def join(self, study: str, token: str, device: str, *, expires_in_s: float) -> None:
        """Store that this process runs trials of a study, unless that is stored already.

        Args:
            study: The study.
            token: What it is known by, unique for ever.
            device: What it trains on.
            expires_in_s: How long it is believed to live without another word.

        Raises:
            StudyStateError: If there is no such study.
        """
        with self._sessions.writing(study) as session:
            key = study_id(session, study)
            if session.get(WorkerRow, token) is None:
                row = WorkerRow(token=token, study_id=key, host=this_host(), pid=os.getpid(), device=device, beat=0)
                row.process_started = process_started(os.getpid()) or 0.0
                row.joined_at = now()
                row.expires_at = now() + timedelta(seconds=expires_in_s)
                session.add(row)

    def beat(self, token: str, *, expires_in_s: float) -> bool:
        """Store that a worker lives; return whether it was still known."""
        values = {"beat": WorkerRow.beat + 1, "expires_at": now() + timedelta(seconds=expires_in_s)}
        with self._sessions.writing(single=True) as session:
            found = session.execute(
                update(WorkerRow).where(WorkerRow.token == token).values(values).returning(WorkerRow.token),
                execution_options={"synchronize_session": False},
            )
            return found.one_or_none() is not None

    def leave(self, token: str) -> None:
        """Forget a worker, and all that it holds: it has left, or is dead."""
        with self._sessions.writing() as session:
            session.execute(delete(LeaseRow).where(LeaseRow.worker == token))
            session.execute(delete(WorkerRow).where(WorkerRow.token == token))

    def all(self, study: str) -> tuple[Worker, ...]:
        """Return the workers of a study, dead ones included that nobody has noticed yet; the first to join first.

        Raises:
            StudyStateError: If there is no such study.
        """
        with self._sessions.reading() as session:
            query = select(*columns(WorkerRow, Worker)).where(WorkerRow.study_id == study_id(session, study))
            rows = session.execute(query.order_by(WorkerRow.joined_at, WorkerRow.token))
            return tuple(Worker(**row._mapping) for row in rows)

    def alive(self, study: str) -> tuple[Worker, ...]:
        """Return the workers that live as far as a glance can tell: by their process here, elsewhere by their word.

        Raises:
            StudyStateError: If there is no such study.
        """
        return tuple(worker for worker in self.all(study) if seems_alive(worker, now()))


def seems_alive(worker: Worker, at: datetime) -> bool:
    """Tell whether a worker lives, by its process if that is on this machine, else by when it last said so."""
    return not is_gone(worker) if worker.host == this_host() else worker.expires_at > at


def is_gone(worker: Worker) -> bool:
    """Tell whether a worker's process was on this machine and is no more; False where that cannot be seen from here."""
    return worker.host == this_host() and process_started(worker.pid) != worker.process_started


@cache
def this_host() -> str:
    """Return what tells this machine, and on it this space of process numbers, from all others.

    The name alone would not: two containers may have the same, and after a restart the numbers begin anew.
    """
    parts = [socket.gethostname()]
    for path in (Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")):
        if path.exists():
            parts.append(os.readlink(path) if path.is_symlink() else path.read_text(encoding="ascii").strip())
    return f"{parts[0]} {sha256(' '.join(parts).encode()).hexdigest()[:16]}"


def process_started(pid: int) -> float | None:
    """Return when a process of this machine began, in a unit of its own; None where it runs no more.

    On Linux it counts from the machine's start: the time of day that psutil makes of it moves when the clock is set.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self/stat").exists() else _started_by_the_clock(pid)
    state, *fields = text.rpartition(")")[2].split()
    return None if state in "ZX" else float(fields[18])  # a zombie is dead, though its parent has not looked yet


def _started_by_the_clock(pid: int) -> float | None:
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None
