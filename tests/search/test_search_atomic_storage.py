"""Optuna's contract of a storage on SQLite and PostgreSQL, and what this one promises beyond it."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import TrialState, create_trial
from postgres_server import Postgres
from search_helpers import Make
from sqlalchemy import event, text
from storage_processes import change_all, open_new

from sweeper.config.trial import Outcome, TrialResult
from sweeper.database_url import Address, PostgresUrl
from sweeper.search.storages.atomic import AtomicStorage
from sweeper.search.storages.open import open_storage

PROCESSES = 8
QUEUED = 125
CONTEXT = multiprocessing.get_context("fork")  # quick; whoever forks closes its connections before


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("empty") / "empty.db"
    open_storage(path).engine.dispose()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Address]:
    if request.param == "sqlite":
        path = tmp_path / "storage.db"
        shutil.copy(request.getfixturevalue("empty"), path)
        yield path
        return
    server: PostgresUrl = request.getfixturevalue("cleared")
    storage = open_storage(server)
    with storage.engine.begin() as connection:
        connection.execute(text("TRUNCATE studies, trials RESTART IDENTITY CASCADE"))
    storage.engine.dispose()
    yield server


@pytest.fixture(scope="session")
def cleared(postgres: Postgres) -> Iterator[PostgresUrl]:
    """One database for all tests, emptied before each: making Optuna's tables takes seconds."""
    with postgres.database() as server:
        yield server


@pytest.fixture
def storage(address: Address) -> Iterator[AtomicStorage]:
    storage = _open(address)
    yield storage
    storage.remove_session()
    storage.engine.dispose()


def _open(address: Address) -> AtomicStorage:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return open_storage(address)


class TestContract(StorageTestCase):
    """What Optuna asks of its own storages."""

    @pytest.fixture
    def storage(self, address: Address) -> Iterator[AtomicStorage]:
        storage = _open(address)
        yield storage
        storage.remove_session()
        storage.engine.dispose()

    def test_pickle_storage(self, storage: AtomicStorage) -> None:
        """Not so here: each process opens it for itself, and no pickle holds its password."""
        with pytest.raises(TypeError, match="opened by each process"):
            pickle.dumps(storage)


def _study(storage: AtomicStorage) -> optuna.Study:
    return optuna.load_study(study_name="s", storage=storage)


def _at_once(target: Any, address: Address, state: TrialState, processes: int = PROCESSES) -> list[Any]:
    barrier, told = CONTEXT.Barrier(processes), CONTEXT.Queue()
    started = [CONTEXT.Process(target=target, args=(address, state, barrier, told)) for _ in range(processes)]
    for process in started:
        process.start()
    answers = [told.get(timeout=600) for _ in started]
    for process in started:
        process.join(60)
        process.close()
    return answers


def test_what_waits_is_handed_out_once_and_what_ended_ends_once(address: Address, storage: AtomicStorage) -> None:
    study = optuna.create_study(study_name="s", storage=storage)
    with storage.transaction():
        for _ in range(QUEUED):
            study.add_trial(create_trial(state=TrialState.WAITING))
    ids = {trial._trial_id for trial in study.get_trials(deepcopy=False)}
    storage.engine.dispose()
    taken = Counter(trial_id for of in _at_once(change_all, address, TrialState.RUNNING) for trial_id in of)
    assert taken == dict.fromkeys(ids, 1)
    assert {trial.state for trial in study.get_trials(deepcopy=False)} == {TrialState.RUNNING}
    storage.engine.dispose()
    accepted = Counter(trial_id for of in _at_once(change_all, address, TrialState.COMPLETE) for trial_id in of)
    assert accepted == dict.fromkeys(ids, 1)


def test_32_processes_open_a_new_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    assert _at_once(open_new, path, TrialState.WAITING, 32) == ["opened"] * 32
    storage = open_storage(path)
    numbers = [trial.number for trial in _study(storage).get_trials(deepcopy=False)]
    storage.engine.dispose()
    assert numbers == list(range(32))


def test_a_transaction_is_stored_whole_or_not_at_all(address: Address, storage: AtomicStorage) -> None:
    study = optuna.create_study(study_name="s", storage=storage)
    trial = study.ask()
    with pytest.raises(RuntimeError, match="midway"), storage.transaction():
        trial.set_user_attr("a", 1)
        study.tell(trial, 0.5)
        assert study.get_trials(deepcopy=False)[0].state == TrialState.COMPLETE
        raise RuntimeError("midway")
    other = _open(address)
    (found,) = _study(other).get_trials(deepcopy=False)
    other.engine.dispose()
    assert (found.state, found.user_attrs) == (TrialState.RUNNING, {})


def test_what_is_gathered_is_stored_before_it_is_read(storage: AtomicStorage) -> None:
    sampler = optuna.samplers.RandomSampler()  # others read the history before they suggest
    study = optuna.create_study(study_name="s", storage=storage, sampler=sampler)
    trial = study.ask()
    begun = []
    event.listen(storage.engine, "commit", begun.append)
    with storage.gathered():
        trial.set_user_attr("a", 1)
        trial.suggest_float("x", 0, 1)
        assert not begun
        assert study.get_trials(deepcopy=False)[0].user_attrs == {"a": 1}
        assert len(begun) == 1
        trial.set_user_attr("a", 2)
        trial.set_user_attr("b", 3)
    assert len(begun) == 2
    (found,) = study.get_trials(deepcopy=False)
    assert found.user_attrs == {"a": 2, "b": 3}
    assert set(found.params) == {"x"}


def test_every_change_by_another_process_is_seen(address: Address, storage: AtomicStorage) -> None:
    writer = _open(address)
    study = optuna.create_study(study_name="s", storage=writer)
    reader = _study(storage)
    study.enqueue_trial({"x": 0.25})

    def seen() -> Any:
        (trial,) = reader.get_trials(deepcopy=False)
        return trial.state.name, trial.params, trial.user_attrs, trial.intermediate_values, trial.values

    assert seen() == ("WAITING", {}, {}, {}, None)
    trial = study.ask()
    assert seen() == ("RUNNING", {}, {}, {}, None)
    trial.suggest_float("x", 0, 1)
    assert seen() == ("RUNNING", {"x": 0.25}, {}, {}, None)
    for value in (1, 2, 2, 1):  # the same number of rows, changed in place
        writer.set_trial_user_attr(trial._trial_id, "a", value)
        writer.set_trial_intermediate_value(trial._trial_id, 7, float(value))
        assert seen() == ("RUNNING", {"x": 0.25}, {"a": value}, {7: float(value)}, None)
    study.tell(trial, 0.5)
    assert seen() == ("COMPLETE", {"x": 0.25}, {"a": 1}, {7: 1.0}, [0.5])
    writer.engine.dispose()


def test_a_read_loads_only_what_changed(storage: AtomicStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    from sweeper.search.storages import trial_rows

    study = optuna.create_study(study_name="s", storage=storage)
    trials = [study.ask() for _ in range(5)]
    study.get_trials(deepcopy=False)
    loaded: list[int] = []
    load = trial_rows.load

    def counting(connection: Any, wanted: Any, study_id: int | None = None) -> Any:
        loaded.extend(head.number for head in wanted)
        return load(connection, wanted, study_id)

    monkeypatch.setattr(trial_rows, "load", counting)
    study.get_trials(deepcopy=False)
    assert loaded == []
    trials[3].report(0.5, 1)
    assert study.get_trials(deepcopy=False)[3].intermediate_values == {1: 0.5}
    assert loaded == [3]


def test_the_search_writes_in_few_transactions(make: Make) -> None:
    search = make(sampler={"kind": "tpe"}, confirm=0)
    commits: list[Any] = []
    event.listen(search.study._storage._backend.engine, "commit", commits.append)
    candidate = search.ask()
    assert candidate is not None
    assert len(commits) == 2, "it is begun, then its parameters, length and warmup are stored at once"
    search.report(candidate.number, 0.5, 1.0)
    assert len(commits) == 3
    ended = {"steps": 1, "total_steps": 1, "started_at": "2026-01-01T00:00:00", "finished_at": "2026-01-01T00:00:01"}
    search.tell(candidate.number, TrialResult(number=candidate.number, outcome=Outcome.COMPLETE, value=1.0, **ended))
    assert len(commits) == 4
