"""Retries: of what, until when, and what the user is told."""

from __future__ import annotations

import errno
import json
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.error import URLError

import pytest
from sqlalchemy.exc import OperationalError

from sweeper import retry
from sweeper.errors import DatabaseError, StudyInterrupted, StudyStateError
from sweeper.faults import passing
from sweeper.retry import RetryPolicy, is_retry, retried, retried_methods, waiting
from sweeper.store import Database, StudyState


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_S", 0.01)
    monkeypatch.setattr(retry, "_POLL_S", 0.01)


class Failing:
    """Fails a number of times, then works."""

    def __init__(self, times, error):
        self.left, self.error, self.calls = times, error, 0

    def __call__(self):
        self.calls += 1
        if self.left:
            self.left -= 1
            raise self.error
        return "done"


def full():
    return OSError(errno.ENOSPC, "No space left on device", "result.json")


def test_a_fault_that_passes_is_waited_for_and_told_once():
    notes, waited, failing = [], [], Failing(3, full())
    with waiting(RetryPolicy(notes.append, lambda: False, waited.append)):
        assert retried(failing)() == "done"
    assert failing.calls == 4
    assert len(notes) == 2
    assert notes[0].startswith("paused: the disk is full ([Errno 28]") and "result.json" in notes[0]
    assert "free some space" in notes[0] and notes[1].startswith("resumed after")
    assert len(waited) == 1 and waited[0] > 0


def test_every_other_fault_is_raised_at_once():
    for error in (ValueError("x"), OSError(errno.ENOENT, "gone"), StudyStateError("no such trial"), KeyError("a")):
        failing = Failing(1, error)
        with waiting(RetryPolicy(pytest.fail, lambda: False)), pytest.raises(type(error)):
            retried(failing)()
        assert failing.calls == 1


def test_nobody_who_has_not_said_so_waits():
    with pytest.raises(OSError, match="No space"):
        retried(Failing(1, full()))()
    own = ThreadPoolExecutor(1)  # as the thread that keeps a worker's leases
    with waiting(RetryPolicy(pytest.fail, lambda: False)), own as threads, pytest.raises(OSError, match="No space"):
        threads.submit(retried(Failing(1, full()))).result()
    with pytest.raises(OSError, match="No space"):
        retried(Failing(1, full()))()


def test_a_stop_ends_the_wait():
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    with (
        waiting(RetryPolicy(lambda note: None, stop.is_set)),
        pytest.raises(StudyInterrupted, match="the disk is full"),
    ):
        retried(Failing(10**9, full()))()


def test_the_whole_is_tried_again_and_not_its_last_part():
    inner, outer = Failing(1, full()), []

    def both():
        outer.append(1)
        return retried(inner)()

    with waiting(RetryPolicy(lambda note: None, lambda: False)):
        assert retried(both)() == "done"
    assert len(outer) == 2


def test_a_retry_knows_that_it_is_one():
    seen = []

    def failing():
        seen.append(is_retry())
        if len(seen) < 3:
            raise full()

    with waiting(RetryPolicy(lambda note: None, lambda: False)):
        retried(failing)()
    assert seen == [False, True, True] and not is_retry()


def test_methods_that_are_transactions_are_retried_unless_within_a_larger_one():
    class Base:
        def __init__(self):
            self.within, self.calls = False, []

        def inherited(self):
            return self._fail("inherited")

        def _fail(self, name):
            self.calls.append(name)
            if self.calls.count(name) < 2:
                raise full()
            return name

    @retried_methods("_named", unless=lambda thing: thing.within)
    class Storage(Base):
        def public(self):
            return self._fail("public")

        def _named(self):
            return self._fail("_named")

        def _private(self):
            return self._fail("_private")

    with waiting(RetryPolicy(lambda note: None, lambda: False)):
        storage = Storage()
        assert [storage.inherited(), storage.public(), storage._named()] == ["inherited", "public", "_named"]
        with pytest.raises(OSError, match="No space"):
            storage._private()
        within = Storage()
        within.within = True
        with pytest.raises(OSError, match="No space"):
            within.public()


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "fails"),
        (errno.ESTALE, "network disk"),
    ],
)
def test_the_faults_of_disks_are_told_apart(number, said):
    assert said in passing(OSError(number, "x"))[0]
    assert said in passing(RuntimeError(f"Error while serializing: I/O error: x (os error {number})"))[0]
    with pytest.raises(DatabaseError) as wrapped:
        raise DatabaseError("explained") from OSError(number, "x")
    assert said in passing(wrapped.value)[0]


def test_a_lost_server_is_waited_for_and_a_refused_statement_is_not():
    psycopg = pytest.importorskip("psycopg")
    lost = OperationalError("SELECT 1", {}, psycopg.OperationalError("connection refused"))
    assert "server" in passing(lost)[0]
    assert "stopped or started" in passing(psycopg.errors.AdminShutdown("ended by the administrator"))[0]
    assert "the disk is full" in passing(psycopg.errors.DiskFull("could not extend file"))[0]
    assert passing(psycopg.errors.UniqueViolation("taken")) is None
    assert passing(psycopg.errors.InvalidPassword("no")) is None
    assert "server" in passing(ConnectionRefusedError(errno.ECONNREFUSED, "refused"))[0]
    assert passing(URLError("unknown url type")) is None


def test_a_locked_database_is_waited_for(tmp_path):
    path, notes = tmp_path / "sweeper.db", []
    with Database.open(path, create=True, busy_timeout_s=0.05) as database:
        made = {"file_name": "s.yaml", "file_text": "", "config": {}, "space": {}, "seed": 1, "packages": {}}
        made |= {"data_sha256": {}, "base_model": "m", "base_model_fingerprint": "0" * 64}
        database.studies.create("one", **made)
        hold = f"import sqlite3, sys; c = sqlite3.connect({json.dumps(str(path))}, isolation_level=None)\n"
        hold += "c.execute('BEGIN IMMEDIATE'); print('held', flush=True); sys.stdin.read()"
        holder = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(DatabaseError, match="locked"):
            database.studies.set_state("one", StudyState.RUNNING)
        threading.Timer(0.5, holder.stdin.close).start()
        begun = time.monotonic()
        with waiting(RetryPolicy(notes.append, lambda: False)):
            database.studies.set_state("one", StudyState.RUNNING)
        assert time.monotonic() - begun > 0.4
        assert database.studies.get("one").state is StudyState.RUNNING
        holder.wait(10)
        holder.stdout.close()
    assert notes[0].startswith("paused: the database is locked by another process")
    assert passing(sqlite3.IntegrityError("UNIQUE constraint failed")) is None


def test_the_search_waits_for_a_locked_database_too(tmp_path, monkeypatch):
    import optuna

    from sweeper.search.storages import open as storage

    monkeypatch.setattr(storage, "BUSY_TIMEOUT_S", 0.05)
    path, notes = tmp_path / "sweeper.db", []
    study = optuna.create_study(study_name="one", storage=storage.open_storage(path))
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    def note(text):
        notes.append(text)
        if text.startswith("paused"):
            holder.execute("ROLLBACK")

    for asked in (study.ask, lambda: study.ask().suggest_float("x", 0, 1)):
        holder.execute("BEGIN IMMEDIATE")
        with waiting(RetryPolicy(note, lambda: False)):
            asked()
    holder.close()
    assert [note.split(" (")[0] for note in notes[::2]] == ["paused: the database is locked by another process"] * 2
    assert len(study.trials) == 2
    study._storage._backend.engine.dispose()
