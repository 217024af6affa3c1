"""One order, one trial's bookkeeping or one listener that fails costs itself, and nothing else of the study."""

from __future__ import annotations

import pytest
from variants import mostly_long

from sweeper.config.trial import Outcome
from sweeper.errors import StudyStateError, UserError
from sweeper.executors.lifecycle import orders as control
from sweeper.executors.lifecycle.recorder import Recorder
from sweeper.executors.listener import Listener
from sweeper.paths import Home
from sweeper.search.schedule import Entry
from sweeper.store import Database, OrderKind, OrderState, StudyState, TrialKind
from sweeper.study.orders import give, withdraw
from sweeper.study.run import resume_study, run_study
from sweeper.upkeep.doctor import diagnose

KINDS = [{"kind": "packed", "slots": 2}, {"kind": "inline"}]
on_both = pytest.mark.parametrize("executor", mostly_long(KINDS, KINDS[0]), ids=lambda each: each["kind"])
PLAIN = {"pruner": "none", "confirm": 0, "sampler": "random", "n_trials": 2}
MODULES = [["q_proj", "v_proj"], ["down_proj"], "all-linear"]


@pytest.fixture
def stored():
    with Database.open(Home.current().database, create=True) as database:
        yield database


def order(database, kind=OrderKind.ENQUEUE, number=None, **data):
    return give(Home.current(), database, "tiny", kind, actor="ada", number=number, data=data).id


def answer(database, number):
    found = database.orders.get("tiny", number)
    return found.state, found.answer or ""


def outcomes(database):
    return [trial.outcome for trial in database.trials.all("tiny")]


@on_both
def test_list_values_run_as_they_are_listed(study_file, executor, stored):
    space = {"target_modules": {"choice": MODULES}, "learning_rate": 0.01}
    run_study(study_file(search={**PLAIN, "n_trials": 1, "space": space}, executor=executor), force=True)
    values = [["q_proj", "v_proj"], ("down_proj",), "all-linear"]
    given = [order(stored, parameters={"target_modules": value}) for value in values]
    given.append(
        order(stored, OrderKind.CLONE, 0, changes={"target_modules": ["q_proj", "v_proj"]}, from_weights=False)
    )
    with pytest.raises(UserError, match=r"target_modules \['v_proj'\] is outside the space"):
        order(stored, parameters={"target_modules": ["v_proj"]})
    resume_study("tiny", force=True)
    assert [answer(stored, number)[0] for number in given] == [OrderState.DONE] * 4
    ran = [trial.parameters["target_modules"] for trial in stored.trials.all("tiny")][1:]
    assert ran == [["q_proj", "v_proj"], ["down_proj"], "all-linear", ["q_proj", "v_proj"]]


@on_both
@pytest.mark.parametrize("error", [RuntimeError("broken"), StopIteration(), KeyError("parameters")], ids=repr)
def test_an_order_that_fails_is_answered_and_the_study_ends_well(study_file, executor, stored, monkeypatch, error):
    def broken(context, order):
        raise error

    run_study(study_file(search=PLAIN, executor=executor), force=True)
    bad, good = order(stored, parameters={"lora_rank": 4}), order(stored, OrderKind.BUDGET, n_trials=3)
    monkeypatch.setitem(control._OBEY, OrderKind.ENQUEUE, broken)
    resume_study("tiny", force=True)
    state, text = answer(stored, bad)
    assert state is OrderState.REFUSED and f"cannot be carried out: {type(error).__name__}" in text
    assert answer(stored, good)[0] is OrderState.DONE and outcomes(stored) == [Outcome.COMPLETE] * 3


@on_both
@pytest.mark.parametrize("method", ["stage", "trial_started", "trial_reported", "trial_ended", "note"])
def test_a_listener_that_fails_ends_nothing(study_file, executor, stored, method):
    class Broken(Listener):
        pass

    def broken(*_, **__):
        raise ZeroDivisionError(method)

    setattr(Broken, method, broken)
    run_study(study_file(search={**PLAIN, "n_trials": 1}, executor=executor), listener=Broken(), force=True)
    assert outcomes(stored) == [Outcome.COMPLETE] and stored.studies.get("tiny").state is StudyState.FINISHED


@on_both
@pytest.mark.parametrize("method", ["start", "announce", "__call__", "end"])
def test_a_trial_that_cannot_be_recorded_fails_alone(study_file, executor, stored, monkeypatch, method):
    sound = getattr(Recorder, method)

    def broken(recorder, *arguments):
        if recorder._spec.number == 0:
            raise TypeError("not what it was")
        return sound(recorder, *arguments)

    if (executor["kind"], method) == ("inline", "announce"):
        pytest.skip("trials that run alone are not announced")
    with monkeypatch.context() as patched:
        patched.setattr(Recorder, method, broken)
        run_study(study_file(search=PLAIN, executor=executor), force=True)
    others = [trial for trial in stored.trials.all("tiny") if trial.number != 0]
    assert [trial.outcome for trial in others] == [Outcome.COMPLETE]
    if method == "end":  # its result is on disk by then
        assert stored.trials.get("tiny", 0).outcome is Outcome.COMPLETE
    elif method != "start":  # before that, the database does not know the trial
        failed = stored.trials.get("tiny", 0)
        assert failed.outcome is Outcome.FAILED and "TypeError: not what it was" in failed.reason
    resume_study("tiny", force=True)
    assert diagnose(Home.current(), "tiny", repair=False, on_progress=lambda *_: None) == []


@on_both
def test_what_waits_in_the_search_and_is_not_of_the_space_fails_alone(begin, executor):
    context = begin(search={**PLAIN, "space": {"target_modules": {"choice": MODULES}}}, executor=executor)
    Entry(TrialKind.ENQUEUED, 0, {"target_modules": "somewhere"}).put(context.search.study, 3)
    assert context.search.ask().number == 1
    assert context.search.interrupted() == [] and context.search.remaining() == 0


def test_an_order_that_waits_is_withdrawn_once(study_file, stored):
    run_study(study_file(search={**PLAIN, "n_trials": 1}), force=True)
    first, second = (order(stored, parameters={"lora_rank": rank}) for rank in (2, 4))
    withdraw(stored, "tiny", first, actor="eve")
    assert answer(stored, first) == (OrderState.WITHDRAWN, "by eve")
    with pytest.raises(StudyStateError, match=f"order {first} does not wait: withdrawn: by eve"):
        withdraw(stored, "tiny", first, actor="eve")
    with pytest.raises(StudyStateError, match="was never given an order 99"):
        withdraw(stored, "tiny", 99, actor="eve")
    resume_study("tiny", force=True)
    assert answer(stored, second)[0] is OrderState.DONE
    assert [trial.parameters["lora_rank"] for trial in stored.trials.all("tiny")][1:] == [4]


IMPOSSIBLE = [
    (OrderKind.ENQUEUE, {"parameters": {"learning_rate": 9}}, None),
    (OrderKind.ENQUEUE, {}, None),
    (OrderKind.CLONE, {"changes": {}, "from_weights": False}, 7),
    (OrderKind.BUDGET, {"n_trials": 0}, None),
    (OrderKind.STOP_TRIAL, {}, 0),
]


def test_the_doctor_withdraws_what_can_never_be_done(study_file, stored):
    run_study(study_file(search={**PLAIN, "n_trials": 1}), force=True)
    bad = [stored.orders.add("tiny", kind, actor="eve", message="", number=n, data=d) for kind, d, n in IMPOSSIBLE]
    good = order(stored, parameters={"lora_rank": 2})
    repaired = diagnose(Home.current(), "tiny", repair=True, on_progress=lambda *_: None)
    assert [each.mended for each in repaired] == [f"withdrew order {number}" for number in bad]
    assert [answer(stored, number)[0] for number in bad] == [OrderState.WITHDRAWN] * len(bad)
    assert answer(stored, good)[0] is OrderState.WAITING
