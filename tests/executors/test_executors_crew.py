"""Workers of one study: who is dead, what becomes of what they held, and that nobody speaks for a lost trial."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, contextmanager

import pytest

from sweeper.config.trial import Outcome, TrialResult
from sweeper.errors import LeaseLost, StudyStateError
from sweeper.executors.lifecycle import claims, recovery
from sweeper.executors.lifecycle.orders import process_orders
from sweeper.executors.lifecycle.recorder import Recorder, finish
from sweeper.executors.lifecycle.recovery import reclaim
from sweeper.executors.lifecycle.trial_spec import specification
from sweeper.executors.listener import Listener
from sweeper.executors.membership import HeartbeatMonitor, WorkerMembership
from sweeper.executors.stop_request import StopRequest
from sweeper.files.atomic import write_atomically
from sweeper.paths import Home
from sweeper.store import SCORING, OrderKind, OrderState
from sweeper.store.records import WorkerRecord
from sweeper.store.rows import now
from sweeper.study import run
from sweeper.study.context import open_stored
from sweeper.study.run import run_study

AT = "2026-01-01T00:00:00+00:00"
GRACE_S = 1.0


def worker(token: str, beat: int, host: str = "elsewhere") -> WorkerRecord:
    return WorkerRecord(token, host, 1, 0.0, "cpu", beat, now(), now())


@pytest.fixture
def several(begin):
    """Two workers of one study in this process; the second sees the first as another process would."""

    def make(**executor):
        first = begin(executor={"kind": "inline", "device": "cpu", "grace_s": GRACE_S, **executor})
        second = open_stored("tiny", Home.current(), first.database, Listener(), StopRequest())
        return first, second

    return make


def start(context):
    candidate = claims.ask(context)
    recorder = Recorder(context, candidate, specification(context, candidate))
    recorder.start()
    return recorder, candidate.number


def fall_silent(watching: WorkerMembership) -> None:
    """Look on until the others, none of whom says a word, are dead."""
    until = time.monotonic() + 5 * GRACE_S
    while watching.alone() is False:
        assert time.monotonic() < until
        time.sleep(GRACE_S / 10)


def complete(number, value=1.0):
    return TrialResult(number=number, outcome=Outcome.COMPLETE, value=value, started_at=AT, finished_at=AT)


def test_whoever_is_silent_for_the_grace_period_is_dead_and_whoever_is_not_is_alive(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("sweeper.executors.membership.time.monotonic", lambda: clock[0])
    watch, dead = HeartbeatMonitor(30.0), set()
    for second in range(0, 60, 2):
        clock[0] = 100.0 + second
        dead = watch.look([worker("silent", 7), worker("lively", second // 10)])
        assert dead == ({"silent"} if second >= 30 else set())
    assert watch.look([worker("silent", 8)]) == set()  # it was only asleep


def test_one_look_after_a_long_sleep_declares_nobody_dead(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("sweeper.executors.membership.time.monotonic", lambda: clock[0])
    watch = HeartbeatMonitor(30.0)
    watch.look([worker("one", 7)])
    clock[0] += 3_600
    assert watch.look([worker("one", 7)]) == set()


def test_the_time_of_day_decides_nothing(several, monkeypatch):
    first, second = several()
    with first.membership:
        monkeypatch.setattr("time.time", lambda: 4e9)
        monkeypatch.setattr("sweeper.store.workers.now", lambda: now().replace(year=2125))
        until = time.monotonic() + 3 * GRACE_S
        while time.monotonic() < until:
            assert second.membership.look() == set()
            time.sleep(0.1)
    monkeypatch.setattr("sweeper.store.workers.now", lambda: now().replace(year=1999))
    first.membership.join()
    fall_silent(second.membership)


def test_two_workers_never_hold_the_same_trial(several):
    first, second = several()
    numbers = [claims.ask(context).number for context in (first, second, first, second)]
    assert numbers == [0, 1, 2, 3]
    assert claims.ask(first) is None and claims.ask(second) is None
    assert claims.stopped(first) == claims.stopped(second) == []
    assert first.membership.elsewhere() == {1, 3} and claims.others_train(second)
    with pytest.raises(LeaseLost, match="trial 1 of study 'tiny' is held by another worker"):
        first.database.leases.take("tiny", 1, first.membership.token)


def test_what_a_dead_worker_ran_begins_again_once_and_it_can_say_no_more_of_it(several):
    first, second = several()
    recorder, number = start(first)
    assert reclaim(second) == 0  # it lives
    fall_silent(second.membership)
    assert reclaim(second) == 1
    assert reclaim(second) == 0
    again = claims.ask(second)
    assert (again.restarts, again.number) == (number, 1)
    with pytest.raises(LeaseLost, match="was reassigned to another worker"):
        recorder.flush()
    with pytest.raises(LeaseLost):
        finish(first, complete(number))
    with pytest.raises(LeaseLost):
        first.search.report(number, 0.5, 1.0)
    record = first.database.trials.get("tiny", number)
    assert (record.outcome, record.value) == (Outcome.INTERRUPTED, None)
    assert {one.token for one in first.database.workers.all("tiny")} == {second.membership.token}


def test_a_worker_that_wakes_up_again_goes_on_with_other_trials(several):
    first, second = several()
    start(first)
    fall_silent(second.membership)
    reclaim(second)
    with first.membership:
        until = time.monotonic() + 5 * GRACE_S
        while len(first.database.workers.all("tiny")) < 2:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert claims.ask(first).number == 1  # what it had begun itself, under its new number


def test_a_result_that_a_dead_worker_left_on_disk_is_taken_over(several):
    first, second = several()
    _, number = start(first)
    write_atomically(first.paths.trial(number).result, complete(number, 2.5).model_dump_json())
    fall_silent(second.membership)
    assert reclaim(second) == 0
    assert second.database.trials.get("tiny", number).value == 2.5
    assert second.database.leases.all("tiny") == ()


def test_a_trial_that_its_workers_die_of_is_failed_in_the_end(several, begin):
    first, second = several(max_retries=1)
    numbers = []
    for _ in range(2):
        numbers.append(start(first)[1])
        fall_silent(second.membership)
        reclaim(second)
        first.search.forget(numbers[-1])
        first.membership.join()
    record = second.database.trials.get("tiny", numbers[-1])
    assert record.outcome is Outcome.FAILED
    assert "died 2 times in a row" in record.reason and "max_retries is 1" in record.reason
    assert claims.ask(second).restarts is None


def test_a_new_checkpoint_ends_the_row_of_deaths(several):
    first, _ = several()
    _, number = start(first)
    assert [first.search.count_death(number, checkpoint=at) for at in (0, 0, 5, 5, 5, 9)] == [1, 2, 1, 2, 3, 1]


def test_a_worker_that_leaves_is_news_to_the_others(several):
    first, second = several()
    with second.membership:
        start(first)
        second.membership.look()
        second.membership.news.clear()
        first.database.workers.leave(first.membership.token)
        assert second.membership.news.wait(5 * GRACE_S)
        process_orders(second)
        assert second.pending_orders.changed
        assert claims.ask(second).restarts == 0


def test_every_worker_pauses_stops_and_keeps_to_a_budget_that_one_of_them_was_told(several):
    first, second = several()
    orders = first.database.orders
    budget = orders.add("tiny", OrderKind.BUDGET, actor="ada", message="more", data={"n_trials": 9})
    process_orders(first)
    process_orders(second)
    assert orders.get("tiny", budget).state is OrderState.DONE
    assert first.config.search.n_trials == second.config.search.n_trials == 9
    assert second.search.remaining() == 9
    late = open_stored("tiny", Home.current(), first.database, Listener(), StopRequest())
    orders.add("tiny", OrderKind.STOP, actor="ada", message="stop")
    for context in (first, second):
        process_orders(context)
        assert context.stop.is_set
    late.pending_orders.seen = orders.latest("tiny")
    process_orders(late)
    assert not late.stop.is_set  # it came after that


def test_one_worker_scores_and_the_others_wait(several):
    first, second = several()
    with run._scoring(first):
        second.stop.set()
        from sweeper.errors import StudyInterrupted

        with pytest.raises(StudyInterrupted, match="another process scores"), run._scoring(second):
            raise AssertionError("both score")
        assert [lease.number for lease in first.database.leases.all("tiny")] == [SCORING]
        assert second.membership.elsewhere() == set()
    with run._scoring(second):
        pass


def test_the_same_file_joins_and_another_is_refused_with_the_difference(study_file, begin):
    begin(search={"n_trials": 2})
    notes = []

    class Noting(Listener):
        def note(self, text):
            notes.append(text)

    with pytest.raises(StudyStateError) as refused:
        run_study(study_file(search={"n_trials": 3}), listener=Noting())
    assert "begun with another file" in str(refused.value)
    assert "search.n_trials: 2 there, 3 here" in str(refused.value)
    run_study(study_file(search={"n_trials": 2}), listener=Noting(), force=True)
    assert any("this process joins it" in note for note in notes)
    with pytest.raises(StudyStateError, match="already; `sweeper resume tiny` goes on with it"):
        run_study(study_file(search={"n_trials": 2}))


def test_an_outage_of_the_database_makes_nobody_dead(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("sweeper.executors.membership.time.monotonic", lambda: clock[0])
    watch = HeartbeatMonitor(30.0)
    for _ in range(10):
        clock[0] += 1
        assert watch.look([worker("one", 7)]) == set()
    clock[0] += 60  # nobody could look, and nobody could speak
    for _ in range(20):
        clock[0] += 1
        assert watch.look([worker("one", 7)]) == set()


def test_what_a_worker_held_that_nobody_knows_any_more_is_given_to_others(several):
    first, second = several()
    second.database.leases.take("tiny", SCORING, "a token of nobody")
    number = claims.ask(first).number
    first.database.workers.leave(first.membership.token)
    first.database.leases.take("tiny", number, first.membership.token)  # as one that was thought dead, and woke up
    assert claims.others_train(second)
    assert reclaim(second) == 1
    assert second.database.leases.all("tiny") == ()
    assert not claims.others_train(second) and not claims.abandoned(second)


def test_a_trial_that_nobody_holds_is_not_left_behind(several):
    first, second = several()
    first.search.ask()  # and its worker ended before it could hold it
    assert claims.stopped(second) == [] and not claims.others_train(second)
    assert claims.abandoned(second)
    reclaim(second)
    assert not claims.abandoned(second)
    assert claims.ask(second).restarts == 0


@contextmanager
def in_another_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    yield thread
    thread.join(60)
    assert not thread.is_alive()


def test_a_trial_ends_whoever_has_the_turn_and_one_that_stays_open_waits_for_it(several):
    first, second = several()
    (_, ended), (_, paused) = start(first), start(second)
    turn = ExitStack()
    turn.enter_context(first.alone())
    with in_another_thread(lambda: finish(first, complete(ended))):
        pass
    assert first.database.trials.get("tiny", ended).outcome is Outcome.COMPLETE
    assert first.membership.elsewhere() == {paused}, "the ended one is held no more"
    pausing = TrialResult(number=paused, outcome=Outcome.PAUSED, started_at=AT, finished_at=AT)
    with in_another_thread(lambda: finish(second, pausing)) as thread:
        thread.join(0.5)
        assert thread.is_alive() and first.search.paused() == [] and first.membership.elsewhere() == {paused}
        turn.close()
    assert first.search.paused() == [paused] and first.membership.elsewhere() == set()


@pytest.mark.parametrize("moment", ["take_up", "finish"])
def test_a_worker_taken_for_dead_may_tell_of_its_end_while_another_does(several, monkeypatch, moment):
    first, second = several()
    _, number = start(first)
    result = complete(number)
    write_atomically(first.paths.trial(number).result, result.model_dump_json())
    first.database.trials.finish("tiny", result, holder=first.membership.token)
    fall_silent(second.membership)
    then = getattr(recovery, moment)

    def overtaken(*arguments):
        first.search.tell(number, result)
        return then(*arguments)

    monkeypatch.setattr(recovery, moment, overtaken)
    assert reclaim(second) == 0
    assert second.database.leases.all("tiny") == () and second.search.interrupted() == []
    assert second.search.complete() == [number]
    assert second.database.trials.get("tiny", number).outcome is Outcome.COMPLETE
    assert claims.ask(second).number == number + 1


def test_a_fault_of_another_kind_is_not_taken_for_that(several, monkeypatch):
    first, second = several()
    _, number = start(first)
    write_atomically(first.paths.trial(number).result, complete(number).model_dump_json())
    fall_silent(second.membership)

    def broken(*arguments):
        raise StudyStateError("somebody removed it")

    monkeypatch.setattr(recovery, "finish", broken)
    with pytest.raises(StudyStateError, match="somebody removed it"):
        reclaim(second)
    monkeypatch.undo()
    assert second.database.leases.all("tiny") == (), "whoever comes next can take it over"
    assert reclaim(second) == 0 and second.search.complete() == [number]
