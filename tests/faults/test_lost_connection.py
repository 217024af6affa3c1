"""The connection to the server is lost at every place that uses it, once at each: a study goes on all the same."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from select import select
from types import FrameType
from typing import Any

import psycopg
import pytest
from postgres_server import Postgres
from sqlalchemy import Connection, Engine, event
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

import sweeper
from sweeper import retry
from sweeper.database_url import PostgresUrl
from sweeper.errors import StudyInterrupted
from sweeper.executors.listener import Listener
from sweeper.executors.stop_request import StopRequest
from sweeper.paths import Home
from sweeper.study import run

from . import invariants

SWEEPER = str(Path(sweeper.__file__).parent)


class Losing:
    """Loses the connection of whatever uses it from a new place, and refuses the next one.

    Args:
        postgres: The server.
        stored: Whether a transaction is stored, and only the answer lost; else nothing of it is stored.
        depth: How many lines of sweeper make a place, counted from the innermost.
    """

    def __init__(self, postgres: Postgres, *, stored: bool, depth: int) -> None:
        self.places: set[tuple[str, ...]] = set()
        self._stored = stored
        self._depth = depth
        self._refuses = False
        self._postgres = postgres

    def executes(self, connection: Connection, *_: Any) -> None:
        if not self._stored and self._is_new():
            self._lose(connection.connection.dbapi_connection)

    def commits(self, connection: Any) -> None:
        new = self._is_new()
        if new and not self._stored:
            self._lose(connection.driver_connection)
        connection.commit()
        if new:
            self._lose(connection.driver_connection)
            connection.driver_connection.close()
            raise psycopg.OperationalError("the connection is lost")

    def connects(self, *_: Any) -> None:
        if self._refuses:
            self._refuses = False
            raise psycopg.OperationalError("connection refused")

    def _is_new(self) -> bool:
        place = lines()[: self._depth]
        new = bool(place) and place not in self.places
        self.places.add(place)
        return new

    def _lose(self, connection: Any) -> None:
        self._postgres.execute(f"SELECT pg_terminate_backend({connection.info.backend_pid})")
        assert select([connection.fileno()], [], [], 30)[0]  # its last words
        self._refuses = True


def lines() -> tuple[str, ...]:
    """The lines of sweeper that led here, the innermost first."""

    def frames() -> Iterator[FrameType]:
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            yield frame
            frame = frame.f_back

    return tuple(f"{f.f_code.co_filename}:{f.f_lineno}" for f in frames() if f.f_code.co_filename.startswith(SWEEPER))


class Stopping(Listener):
    """Stops the study as soon as a trial has a step."""

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop

    def trial_reported(self, number: int, step: int, metrics: Any) -> None:
        self._stop.set()


@contextmanager
def losing_from(name: str, losing: Losing) -> Iterator[None]:
    """Lose connections from the call of this function of ``run`` on: who finds no server before is told at once."""
    hooks = (("before_cursor_execute", losing.executes), ("do_connect", losing.connects))
    called = getattr(run, name)
    with pytest.MonkeyPatch.context() as patch:

        def from_here(*args: Any, **kwargs: Any) -> Any:
            for hook in hooks:
                event.listen(Engine, *hook)
            patch.setattr(PGDialect_psycopg, "do_commit", losing.commits)
            return called(*args, **kwargs)

        patch.setattr(run, name, from_here)
        for seconds in ("FIRST_S", "LONGEST_S", "_POLL_S"):
            patch.setattr(retry, seconds, 0.01)
        yield
    for hook in hooks:
        event.remove(Engine, *hook)


@pytest.mark.parametrize("depth", [2, pytest.param(3, marks=pytest.mark.long)])
@pytest.mark.parametrize("stored", [pytest.param(False, id="before"), pytest.param(True, id="after")])
@pytest.mark.parametrize("kind", ["packed", pytest.param("inline", marks=pytest.mark.long)])
def test_a_study_goes_on_wherever_the_connection_is_lost(
    study_file, server: PostgresUrl, postgres: Postgres, kind, stored, depth
):
    search = {"n_trials": 4, "confirm": 0.2, "confirm_top": 1}
    file = study_file(search=search, executor={"kind": kind, "grace_s": 2}, storage=server.written)
    stop, begun, resumed = StopRequest(), *(Losing(postgres, stored=stored, depth=depth) for _ in range(2))
    with losing_from("_run", begun), pytest.raises(StudyInterrupted):
        run.run_study(file, listener=Stopping(stop), stop=stop)
    with losing_from("open_stored", resumed):
        result = run.resume_study("tiny", force=True)
    assert result.registered is not None
    assert list(invariants.at_end(Home.current(), "tiny", 4)) == []
    assert len(begun.places) > 12 and len(resumed.places) > 25, (begun.places, resumed.places)
