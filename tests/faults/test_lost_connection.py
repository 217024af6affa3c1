"""The connection to the server is lost at every place that uses it, once at each: a study goes on as if nothing were."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import psycopg
import pytest
from postgres_server import Postgres
from sqlalchemy import Connection, Engine, event
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

import sweeper
from sweeper import patience, run
from sweeper.address import Server
from sweeper.executors.base import Silent
from sweeper.executors.stopping import StopRequest
from sweeper.errors import StudyInterrupted
from sweeper.paths import Home
from sweeper.store import Database, StudyState

from . import invariants

DEPTH = 3
SWEEPER = str(Path(sweeper.__file__).parent)


class Losing:
    """Loses the connection of whatever uses it from a new place, and refuses the one after.

    Args:
        postgres: The server.
        answered: Whether a transaction is stored and only the answer lost; else nothing of it is stored.
    """

    def __init__(self, postgres: Postgres, *, answered: bool) -> None:
        self.places: set[tuple[str, ...]] = set()
        self._answered = answered
        self._refuse = threading.Event()
        self._postgres = postgres

    def executes(self, connection: Connection, *_: Any) -> None:
        if not self._answered and self._is_new():
            self._end(connection.connection.dbapi_connection)

    def commits(self, connection: Any) -> None:
        new = self._is_new()
        if new and not self._answered:
            self._end(connection.driver_connection)
        connection.commit()
        if new:
            self._end(connection.driver_connection)
            raise psycopg.OperationalError("the connection is lost")

    def connects(self, *_: Any) -> None:
        if self._refuse.is_set():
            self._refuse.clear()
            raise psycopg.OperationalError("connection refused")

    def _is_new(self) -> bool:
        place = here()
        new = bool(place) and place not in self.places
        self.places.add(place)
        return new

    def _end(self, connection: Any) -> None:
        self._postgres.execute(f"SELECT pg_terminate_backend({connection.info.backend_pid}, 5000)")
        self._refuse.set()


def here() -> tuple[str, ...]:
    """Return the lines of sweeper that led here."""
    frame: FrameType | None = sys._getframe()
    found = []
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(SWEEPER):
            found.append(f"{path[len(SWEEPER) + 1 :]}:{frame.f_lineno}")
        frame = frame.f_back
    return tuple(found[:DEPTH])


class Telling(Silent):
    """Keeps what it is told; stops at the first step of a trial."""

    def __init__(self, stop: StopRequest | None = None, at: int = 0) -> None:
        self.notes: list[str] = []
        self.stop, self.at = stop, at

    def note(self, text: str) -> None:
        self.notes.append(text)

    def trial_reported(self, number: int, step: int, metrics: Any) -> None:
        if self.stop is not None and number == self.at:
            self.stop.set()


@pytest.mark.parametrize("kind", ["packed", "inline"])
@pytest.mark.parametrize("answered", [False, True], ids=["before", "after"])
def test_a_study_waits_for_the_server_wherever_it_uses_it(
    study_file, server: Server, postgres: Postgres, monkeypatch, kind, answered
):
    file = study_file(search={"n_trials": 4, "confirm": 0.2, "confirm_top": 1}, executor={"kind": kind}, storage=server.written)
    home, stop, losing = Home.current(), StopRequest(), Losing(postgres, answered=answered)
    first, second = Telling(stop, 1), Telling()
    monkeypatch.setattr(patience, "FIRST_S", 0.01)
    begin = run._run

    def begin_losing(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(PGDialect_psycopg, "do_commit", losing.commits)
        event.listen(Engine, "before_cursor_execute", losing.executes)
        event.listen(Engine, "do_connect", losing.connects)
        return begin(*args, **kwargs)

    monkeypatch.setattr(run, "_run", begin_losing)
    try:
        with pytest.raises(StudyInterrupted):
            run.run_study(file, listener=first, stop=stop)
    finally:
        event.remove(Engine, "before_cursor_execute", losing.executes)
        event.remove(Engine, "do_connect", losing.connects)
        print(len(losing.places), first.notes, second.notes, file=sys.__stderr__)
    verdict = run.resume_study("tiny", listener=second)
