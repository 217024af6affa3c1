"""Optuna's storage on a file of its own or shared, sound or broken, from one process or two."""

from __future__ import annotations

import multiprocessing
import sqlite3
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import optuna
import pytest

from sweeper.errors import DatabaseError
from sweeper.search.storages.open import open_storage

N_QUEUED = 30


def test_it_is_in_wal_mode_and_waits_for_others(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "folder" / "a {name} 100%.db")
    with storage.engine.connect() as connection:
        pragma = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "busy_timeout")
        }
    storage.engine.dispose()
    assert pragma == {"journal_mode": "wal", "synchronous": 1, "busy_timeout": 30_000}
    assert (tmp_path / "folder" / "a {name} 100%.db").is_file()


def test_other_tables_in_the_file_stay(tmp_path: Path) -> None:
    path = tmp_path / "shared.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE sweeper_studies (name TEXT)")
        connection.execute("INSERT INTO sweeper_studies VALUES ('mine')")
    connection.close()
    storage = open_storage(path)
    optuna.create_study(study_name="s", storage=storage)
    storage.engine.dispose()
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT name FROM sweeper_studies").fetchall() == [("mine",)]
    connection.close()


@pytest.mark.parametrize("content", [b"not a database, but long enough to be looked at" * 40, b"SQLite format 3\0junk"])
def test_a_file_that_is_no_database_is_refused_and_unchanged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(DatabaseError, match=r"notes\.txt cannot be opened as a database"):
        open_storage(path)
    assert path.read_bytes() == content


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="cannot be opened"):
        open_storage(tmp_path)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "newer.db"
    open_storage(path).engine.dispose()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
    connection.close()
    with pytest.raises(DatabaseError, match="another version of Optuna"):
        open_storage(path)


def _take_all(path: Path, barrier: Barrier, taken: Any) -> None:
    barrier.wait(60)
    storage = open_storage(path)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(study_name="s", storage=storage)
    numbers = []
    while any(trial.state == optuna.trial.TrialState.WAITING for trial in study.get_trials(deepcopy=False)):
        trial_id = study._pop_waiting_trial_id()
        if trial_id is not None:
            numbers.append(trial_id)
    taken.put(numbers)


def _open_new(path: Path, barrier: Barrier, taken: Any) -> None:
    barrier.wait(60)
    try:
        open_storage(path)
        taken.put("opened")
    except Exception as error:
        taken.put(repr(error))


def _in_two_processes(target: Any, path: Path) -> list[Any]:
    context = multiprocessing.get_context("spawn")
    barrier, taken = context.Barrier(2), context.Queue()
    processes = [context.Process(target=target, args=(path, barrier, taken)) for _ in range(2)]
    for process in processes:
        process.start()
    results = [taken.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(60)
        process.close()
    return results


def test_two_processes_never_take_the_same_trial(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    storage = open_storage(path)
    study = optuna.create_study(study_name="s", storage=storage)
    for value in range(N_QUEUED):
        study.enqueue_trial({"x": value})
    storage.engine.dispose()
    taken = [number for numbers in _in_two_processes(_take_all, path) for number in numbers]
    assert len(taken) == N_QUEUED
    assert len(set(taken)) == N_QUEUED


def test_two_processes_can_create_the_file_at_once(tmp_path: Path) -> None:
    assert _in_two_processes(_open_new, tmp_path / "new.db") == ["opened", "opened"]
