"""A transaction of which the answer is lost, or of which nothing is stored: tried again, it counts once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState
from search_helpers import result

from sweeper import retry
from sweeper.errors import LeaseLost
from sweeper.retry import RetryPolicy, waiting
from sweeper.search.storages.transactions import together


@contextmanager
def losing(search, *, stored: bool) -> Iterator[SimpleNamespace]:
    """Fail at every second commit, before or after it stores; in the block faults are waited for."""
    engine = search.study._storage._backend.engine
    count, commit = SimpleNamespace(commits=0, failed=0), engine.dialect.do_commit

    def failing(connection) -> None:
        count.commits += 1
        fails = count.commits % 2 == 1
        if stored or not fails:
            commit(connection)
        if fails:
            count.failed += 1
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorname = "SQLITE_IOERR"
            raise error

    with pytest.MonkeyPatch.context() as patch, waiting(RetryPolicy(lambda note: None, lambda: False)):
        patch.setattr(engine.dialect, "do_commit", failing)
        for seconds in ("FIRST_S", "LONGEST_S", "_POLL_S"):
            patch.setattr(retry, seconds, 0.001)
        yield count
    assert count.failed


@pytest.mark.parametrize("stored", [False, True], ids=["before", "after"])
def test_a_study_of_lost_answers_has_what_a_quiet_one_has(make, stored):
    def conduct(search, after: Callable[[], None] = lambda: None) -> list[tuple]:
        for value in range(3):
            candidate = search.ask()
            search.report(candidate.number, 0.5, float(value))
            search.tell(candidate.number, result(candidate.number, value=float(value)))
        left = search.ask().number
        search.forget(left)
        search.requeue(left)
        return [(t.number, t.state, t.values, dict(t.params), dict(t.user_attrs)) for t in search.study.trials]

    quiet = conduct(make("quiet.db"))
    lost = make("lost.db")
    with losing(lost, stored=stored):
        found = conduct(lost)
    assert found == quiet
    assert [state for _, state, *_ in found] == [TrialState.COMPLETE] * 3 + [TrialState.FAIL, TrialState.WAITING]


def test_what_another_has_ended_is_not_ended_again_by_who_tries_again(make):
    mine = make()
    number = mine.ask().number
    other = make(opened=True)
    other.take_up(number)
    other.tell(number, result(number, value=1.0))
    with waiting(RetryPolicy(lambda note: None, lambda: False)), pytest.raises(LeaseLost):
        mine.tell(number, result(number, value=1.0))


def test_what_was_read_of_a_transaction_that_failed_is_forgotten(make):
    study = make().study
    known = len(study.get_trials())
    with pytest.raises(RuntimeError, match="midway"), together(study):
        study.add_trial(optuna.trial.create_trial(state=TrialState.WAITING))
        assert len(study.get_trials()) == known + 1
        raise RuntimeError("midway")
    assert len(study.get_trials()) == known
    number = study.ask().number
    assert [trial.number for trial in study.get_trials()][-1] == number == known
