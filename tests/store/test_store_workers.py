"""Workers, leases and turns: who lives, who holds what, and one at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta

import pytest

from sweeper.config.trial import Outcome, TrialResult
from sweeper.errors import DatabaseError, LeaseLost, StudyStateError
from sweeper.store import Database, TrialKind, locks
from sweeper.store import workers as module
from sweeper.store.rows import now

AT = "2026-01-01T00:00:00+00:00"
FORK = multiprocessing.get_context("fork")


def result(number: int) -> TrialResult:
    return TrialResult(number=number, outcome=Outcome.COMPLETE, value=1.0, started_at=AT, finished_at=AT)


def test_a_worker_lives_from_its_joining_to_its_leaving(database, new_study):
    new_study()
    with pytest.raises(StudyStateError, match="no study 'nowhere'"):
        database.workers.join("nowhere", "a", "cpu", expires_in_s=60)
    database.workers.join("itn", "a", "cuda:0", expires_in_s=60)
    database.workers.join("itn", "a", "cuda:0", expires_in_s=60)
    (found,) = database.workers.alive("itn")
    assert (found.token, found.pid, found.device, found.beat) == ("a", os.getpid(), "cuda:0", 0)
    assert database.workers.beat("a", expires_in_s=60)
    assert database.workers.all("itn")[0].beat == 1
    database.leases.take("itn", 3, "a")
    database.workers.leave("a")
    assert database.workers.all("itn") == () and database.leases.all("itn") == ()
    assert not database.workers.beat("a", expires_in_s=60)


def test_a_process_that_is_gone_is_dead_at_once_and_a_later_one_of_its_number_is_another(database, new_study):
    new_study()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    started = module.process_started(child.pid)
    assert started is not None
    child.kill()
    until = time.monotonic() + 10
    while module.process_started(child.pid) is not None:  # a zombie counts as gone before anyone has waited for it
        assert time.monotonic() < until
    child.wait()
    assert module.process_started(child.pid) is None
    database.workers.join("itn", "a", "cpu", expires_in_s=60)
    (worker,) = database.workers.all("itn")
    assert not module.is_gone(worker)
    assert module.is_gone(type(worker)(**{**vars(worker), "process_started": worker.process_started - 1}))
    elsewhere = type(worker)(**{**vars(worker), "host": "another machine", "process_started": 0.0})
    assert not module.is_gone(elsewhere)
    assert module.seems_alive(elsewhere, now()) and not module.seems_alive(elsewhere, now() + timedelta(hours=1))


def test_a_trial_is_held_by_one_worker_and_only_it_may_store_its_end(database, new_study, spec):
    new_study()
    database.trials.start(spec(0), TrialKind.SAMPLED)
    database.leases.take("itn", 0, "a")
    with pytest.raises(LeaseLost, match="trial 0 of study 'itn' is held by another worker"):
        database.leases.take("itn", 0, "b")
    database.leases.release("itn", 0, "b")
    database.leases.require("itn", 0, "a")
    with pytest.raises(LeaseLost):
        database.trials.finish("itn", result(0), holder="b")
    with pytest.raises(LeaseLost):
        database.metrics.add("itn", [(0, 1, {"loss": 1.0})], holder="b")
    assert database.trials.get("itn", 0).outcome is None and database.metrics.get("itn") == ()
    database.metrics.add("itn", [(0, 1, {"loss": 1.0})], holder="a")
    database.trials.finish("itn", result(0), holder="a")
    database.leases.release("itn", 0)
    with pytest.raises(LeaseLost):
        database.leases.require("itn", 0, "a")


def _count(path, counter, times):
    with Database.open(path, create=False) as database:
        for _ in range(times):
            with database.study_lock("itn"), database.study_lock("itn"):
                value = int(counter.read_text())
                time.sleep(0.0005)
                counter.write_text(str(value + 1))


def test_processes_take_turns(database, tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [FORK.Process(target=_count, args=(database.address, counter, 25)) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 8
    assert counter.read_text() == "200"


def _hold(path, held):
    with Database.open(path, create=False) as database, database.study_lock("itn"):
        held.set()
        time.sleep(600)


def test_a_turn_ends_with_its_process_and_one_that_was_stopped_midway_is_named(database, monkeypatch):
    held = FORK.Event()
    process = FORK.Process(target=_hold, args=(database.address, held))
    process.start()
    held.wait()
    with database.study_lock("other"):  # each study has its own
        pass
    os.kill(process.pid, signal.SIGSTOP)
    monkeypatch.setattr(locks, "TIMEOUT_S", 0.3)
    with (
        pytest.raises(DatabaseError, match=r"another process has held study 'itn' for 0\.3 s"),
        database.study_lock("itn"),
    ):
        raise AssertionError
    os.kill(process.pid, signal.SIGKILL)
    with database.study_lock("itn"):
        pass
    process.join()
