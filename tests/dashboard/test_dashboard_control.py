"""The page that steers a study: every order it gives is a row in the database, and viewers give none."""

from __future__ import annotations

import json
import time

import pytest
from filelock import FileLock
from filled_home import HOSTILE
from sweeper_dashboard import session
from sweeper_dashboard.data import control as data

from sweeper.config.trial import Outcome
from sweeper.run import run_study
from sweeper.store import OrderKind, OrderState, StudyState

SPACE = {
    "learning_rate": {"kind": "float", "low": 1e-5, "high": 1e-1, "log": True},
    "lora_rank": {"kind": "choice", "choice": [8, 16]},
    "warmup_steps": {"kind": "int", "low": 0, "high": 10},
    "batch_size": {"kind": "fixed", "value": 8},
}


@pytest.fixture
def steer(fill, monkeypatch):
    """A study with a space, two trials of which one runs; ``alive`` says that a process holds it."""
    monkeypatch.setattr(data, "_PATIENCE_S", 0.2)
    held = []

    def make(*, alive=False, space=SPACE, **study):
        create = fill.database.studies.create
        shaped = {"preset": "lora", "reasons": [], "space": space}
        with monkeypatch.context() as patched:
            patched.setattr(
                fill.database.studies, "create", lambda *name, **more: create(*name, **{**more, "space": shaped})
            )
            fill.study(**study)
        fill.trial(0, value=1.5, learning_rate=2e-3)
        fill.trial(1, None)
        if alive:
            paths = fill.home.study("itn")
            paths.folder.mkdir(parents=True)
            held.append(FileLock(paths.lock))
            held[-1].acquire()
        return fill.database

    yield make
    for lock in held:
        lock.release()


def button(app, key):
    return next(each for each in app.button if each.key == key or each.label == key)


def texts(app):
    return "\n".join(text.value for text in app.text)


def test_an_empty_home_says_what_to_do(show):
    app = show("control")
    assert "no study has been run" in app.info[0].value


def test_a_study_that_nobody_runs_takes_orders_for_later(show, steer):
    database = steer()
    app = show("control", study="itn")
    shown = {metric.label: metric.value for metric in app.metric}
    assert (shown["State"], shown["Runner"], shown["Trials"]) == ("interrupted", "none", "1 of 6")
    assert button(app, "pause").disabled and button(app, "stop").disabled and not button(app, "resume").disabled
    assert button(app, "enqueue itn submit").disabled  # nothing is named yet
    rate, warmup = app.number_input(key="enqueue itn learning_rate"), app.number_input(key="enqueue itn warmup_steps")
    assert (rate.value, rate.min, rate.max) == (None, 1e-5, 1e-1)
    rate.set_value(5e-3)
    warmup.set_value(4)
    app.selectbox(key="enqueue itn lora_rank").set_value(16).run()
    button(app, "enqueue itn submit").click().run()
    assert not app.exception
    (order,) = database.orders.waiting("itn")
    assert (order.kind, order.actor) == (OrderKind.ENQUEUE, session.user().name)
    assert order.data == {"parameters": {"learning_rate": 5e-3, "lora_rank": 16, "warmup_steps": 4}}
    assert "waits until the study is resumed" in texts(app)
    (table,) = app.dataframe
    assert list(table.value["state"]) == ["waiting"]


def test_a_running_study_is_paused_and_resumed_and_asks_before_it_stops(show, steer):
    database = steer(alive=True)
    app = show("control", study="itn")
    assert button(app, "resume").disabled
    button(app, "pause").click().run()
    assert "is obeyed after the step under way" in texts(app)
    button(app, "stop").click().run()
    assert [order.kind for order in database.orders.waiting("itn")] == [OrderKind.PAUSE]  # it only asked
    assert button(app, "Stop it") and button(app, "Let it run")
    database.studies.set_state("itn", StudyState.PAUSED)
    app.run()
    button(app, "resume").click().run()
    assert database.orders.waiting("itn")[-1].kind is OrderKind.RESUME
    button(app, "stop 1").click().run()
    last = database.orders.waiting("itn")[-1]
    assert (last.kind, last.number) == (OrderKind.STOP_TRIAL, 1)
    assert "is done when the paused study is resumed" in texts(app)


def test_an_answer_is_shown_when_it_comes(show, steer):
    database = steer(alive=True)
    app = show("control", study="itn")
    button(app, "pause").click().run()
    database.orders.answer("itn", database.orders.waiting("itn")[0].id, OrderState.DONE, "takes no step")
    app.run()
    row = app.dataframe[0].value.iloc[0]
    assert (row["asked"], row["state"], row["answer"]) == ("pause", "done", "takes no step")


def test_a_clone_is_prefilled_from_the_address_and_sends_what_changed(show, steer, fill):
    database = steer()
    app = show("control", study="itn", clone="0")
    assert app.selectbox(key="clone of itn").value == 0
    rate = app.number_input(key="clone itn 0 learning_rate")
    assert rate.value == 2e-3
    assert any("the same configuration runs again" in caption.value for caption in app.caption)
    rate.set_value(1e-3).run()
    assert any("was 0.002" in caption.value for caption in app.caption)
    (weights,) = app.checkbox
    assert weights.disabled and "has no specification" in texts(app)
    button(app, "clone itn submit").click().run()
    (order,) = database.orders.waiting("itn")
    assert (order.kind, order.number) == (OrderKind.CLONE, 0)
    assert order.data == {"changes": {"learning_rate": 1e-3}, "from_weights": False}


def test_the_budget_sends_what_changed_and_refuses_in_words(show, steer):
    database = steer()
    app = show("control", study="itn")
    trials = next(each for each in app.number_input if each.label == "Trials")
    slots = next(each for each in app.number_input if each.label == "Slots")
    assert (trials.value, slots.value) == (6, None)
    trials.set_value(9)
    slots.set_value(3)
    button(app, "Change the budget").click().run()
    (order,) = database.orders.waiting("itn")
    assert order.data == {"n_trials": 9, "slots": 3}
    app.text_input[0].set_value("soon")
    button(app, "Change the budget").click().run()
    assert "must be a duration" in texts(app)
    assert len(database.orders.all("itn")) == 1


def test_viewers_see_all_and_give_no_order(show, steer, monkeypatch):
    steer(alive=True)
    monkeypatch.setattr(session, "user", lambda: session.User("eve", "viewer"))
    app = show("control", study="itn")
    assert "orders are given by editors" in app.info[0].value
    assert app.button and all(each.disabled for each in app.button)


def test_hostile_texts_are_shown_as_they_are(show, steer):
    choices = {"kind": "choice", "choice": [HOSTILE, "plain"]}
    database = steer(space={**SPACE, "lr_scheduler": choices, HOSTILE: SPACE["learning_rate"]})
    given = database.orders.add("itn", OrderKind.ENQUEUE, actor=HOSTILE, message="", data={"parameters": {HOSTILE: 1}})
    database.orders.answer("itn", given, OrderState.REFUSED, HOSTILE)
    app = show("control", study="itn")
    kinds = ("markdown", "caption", "error", "info", "warning", "subheader")
    labels = [each.label for each in [*app.selectbox, *app.number_input, *app.button, *app.checkbox]]
    helps = [str(each.help) for each in [*app.selectbox, *app.number_input, *app.button]]
    read = labels + helps + [str(each.value) for kind in kinds for each in app.get(kind)]
    assert not [text for text in read if "script" in text or "**" in text.replace("**Trial", "").replace("0**", "")]
    assert "\x1b" not in str(app.dataframe[0].value.to_dict())


def test_a_study_goes_on_in_a_process_of_its_own(show, study_file, fill, monkeypatch):
    plain = {"pruner": "none", "confirm": 0, "sampler": "random", "n_trials": 1}
    run_study(study_file(name="itn", search=plain), force=True)
    data.order("itn", OrderKind.ENQUEUE, actor="ada", data={"parameters": {"learning_rate": 2e-3}})
    app = show("control", study="itn")
    button(app, "resume").click().run()
    assert "A process goes on with itn" in texts(app)
    process = data._started["itn"]
    assert process.wait(120) in (0, 1), fill.home.study("itn").resume_log.read_text()
    trials = fill.database.trials.all("itn")
    assert [trial.outcome for trial in trials] == [Outcome.COMPLETE] * 2
    assert trials[1].parameters["learning_rate"] == 2e-3
    assert json.dumps(fill.database.orders.all("itn")[0].data)
    fill.home.study("itn").resolved.unlink()
    data.resume("itn", actor="ada")
    while data._started["itn"].poll() is None:
        time.sleep(0.1)
    app = show("control", study="itn")
    assert any("failed" in error.value for error in app.error)
    assert any("cannot go on" in code.value for code in app.code)
