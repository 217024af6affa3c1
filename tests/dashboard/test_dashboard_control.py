"""The page that steers a study: every order it gives is a row in the database, and viewers give none."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack

import pytest
from filled_home import HOSTILE
from typer.testing import CliRunner

from sweeper.cli.main import app as cli
from sweeper.config.trial import Outcome
from sweeper.errors import StudyStateError
from sweeper.files.atomic import write_json
from sweeper.store import OrderKind, OrderState, StudyState
from sweeper.study.run import run_study
from sweeper_dashboard import session
from sweeper_dashboard.data import control as data

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
    held = ExitStack()

    def make(*, alive=False, space=SPACE, **study):
        create = fill.database.studies.create
        shaped = {"preset": "lora", "reasons": [], "space": space}
        with monkeypatch.context() as patched:
            patched.setattr(
                fill.database.studies, "create", lambda *name, **more: create(*name, **{**more, "space": shaped})
            )
            fill.study(**study)
        name = study.get("name", "itn")
        fill.trial(0, value=1.5, learning_rate=2e-3, study=name)
        fill.trial(1, None, study=name)
        if alive:
            held.enter_context(fill.held(name))
        return fill.database

    with held:
        yield make


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
    assert button(app, "Stop the study") and button(app, "Keep running")
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
    assert (row["order"], row["state"], row["answer"]) == ("pause", "done", "takes no step")


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
    button(app, "Change budget").click().run()
    (order,) = database.orders.waiting("itn")
    assert order.data == {"n_trials": 9, "slots": 3}
    app.text_input[0].set_value("soon")
    button(app, "Change budget").click().run()
    assert "must be a duration" in texts(app)
    assert len(database.orders.all("itn")) == 1


@pytest.mark.parametrize(("limit", "shown"), [(1_209_600, "1209600s"), (12345.678, "12345.678s"), (None, "")])
def test_a_time_limit_is_shown_exactly_and_not_asked_for_again(show, steer, fill, limit, shown):
    database = steer()
    config = database.studies.get("itn").config
    database.studies.set_config("itn", {**config, "search": {**config["search"], "timeout": limit}})
    app = show("control", study="itn")
    assert app.text_input[0].value == shown
    button(app, "Change budget").click().run()
    assert "Nothing to change" in texts(app)
    next(each for each in app.number_input if each.label == "Trials").set_value(9)
    button(app, "Change budget").click().run()
    assert [order.data for order in database.orders.all("itn")] == [{"n_trials": 9}]


def test_the_address_names_the_trial_that_is_picked_to_clone(show, steer):
    steer()
    app = show("control", study="itn")
    assert "clone" not in app.query_params
    app.selectbox(key="clone of itn").set_value(0).run()
    assert "".join(app.query_params["clone"]) == "0"
    assert app.selectbox(key="clone of itn").value == 0
    app.selectbox(key="clone of itn").set_value(1).run()
    assert ("".join(app.query_params["clone"]), app.selectbox(key="clone of itn").value) == ("1", 1)


def test_a_study_of_another_version_is_said_to_be_one(show, steer):
    database = steer()
    config = database.studies.get("itn").config
    database.studies.set_config("itn", {**config, "search": {**config["search"], "moon": "full"}})
    app = show("control", study="itn")
    assert "was stored by another version of sweeper" in texts(app)
    for arguments in (("budget", "itn", "--trials", "3"), ("resume", "itn"), ("status",), ("trials", "itn")):
        refused = CliRunner().invoke(cli, arguments)
        assert isinstance(refused.exception, StudyStateError) or refused.exit_code == 2, arguments
        assert "was stored by another version" in f"{refused.exception} {refused.stderr}"


def test_a_stage_goes_on_as_the_whole_study(show, steer, fill, monkeypatch):
    steer(name="p-sft")
    write_json(fill.home.study("p").pipeline, {})
    begun = []
    monkeypatch.setattr(data, "_start", lambda home, name: begun.append(name) or Living())
    app = show("control", study="p-sft")
    button(app, "resume").click().run()
    assert begun == ["p"] and "Resuming p;" in texts(app)
    assert button(app, "resume").disabled
    said = CliRunner().invoke(cli, ["enqueue", "p-sft", "learning_rate=2e-3"])
    assert "`sweeper resume p`" in said.stdout, said.output
    with pytest.raises(StudyStateError, match="`sweeper resume p` goes on"):
        data.order("p-sft", OrderKind.PAUSE, actor="ada")
    data._started.pop(fill.home.study("p").folder).end(0)
    assert not data.control("p-sft").live
    fill.study(name="p-reward")
    with fill.held("p-reward"):
        assert data.control("p-sft").live and not data.control("p-sft").runs


class Living:
    """A process that lives until it is ended."""

    returncode = None

    def poll(self):
        return self.returncode

    def end(self, code):
        self.returncode = code


def test_one_resume_lives_at_a_time(show, steer, fill, monkeypatch):
    steer().studies.set_state("itn", StudyState.INTERRUPTED)
    fill.home.study("itn").folder.mkdir(parents=True)
    begun = []
    monkeypatch.setattr(data, "_start", lambda home, name: begun.append(Living()) or begun[-1])
    data.resume("itn", actor="ada")
    assert "already" in data.resume("itn", actor="ada") and len(begun) == 1
    assert button(show("control", study="itn"), "resume").disabled
    fill.home.study("itn").resume_log.write_text("it broke")
    begun[0].end(1)
    app = show("control", study="itn")
    assert not button(app, "resume").disabled and app.code[0].value == "it broke"
    with fill.held():
        assert data.control("itn").failed is None
        assert "already" in data.resume("itn", actor="ada") and len(begun) == 1
        assert button(show("control", study="itn"), "resume").disabled
    data.resume("itn", actor="ada")
    assert len(begun) == 2
    del data._started[fill.home.study("itn").folder]


def test_a_resume_takes_no_log_from_under_another(fill):
    study = fill.home.study("itn")
    study.folder.mkdir(parents=True)
    with study.resume_log.open("w") as other:
        other.write("x" * 1000)
        other.flush()
        process = data._start(fill.home, "itn")
        other.write("of another process")
    assert process.wait(60) == 2
    assert "another process" not in study.resume_log.read_text() and "no study" in study.resume_log.read_text()


@pytest.mark.parametrize("key", ["pause", "stop 1", "clone itn submit", "Change budget"])
def test_the_role_is_looked_at_when_a_click_arrives(show, steer, monkeypatch, closed_buttons_work, key):
    database = steer(alive=True)
    monkeypatch.setattr(session, "user", lambda: session.User("eve", "viewer"))
    app = show("control", study="itn")
    if key == "Change budget":
        next(each for each in app.number_input if each.label == "Trials").set_value(9)
    button(app, key).click().run()
    assert "Only editors can change anything" in texts(app)
    assert database.orders.all("itn") == ()


def test_a_viewer_is_not_asked_whether_to_stop(show, steer, monkeypatch, closed_buttons_work):
    steer(alive=True)
    monkeypatch.setattr(session, "user", lambda: session.User("eve", "viewer"))
    app = show("control", study="itn")
    button(app, "stop").click().run()
    assert "Stop the study" not in [each.label for each in app.button]


def test_a_viewer_starts_no_process(show, steer, monkeypatch, closed_buttons_work):
    database = steer()
    monkeypatch.setattr(data, "_start", lambda *_: pytest.fail("it was started"))
    monkeypatch.setattr(session, "user", lambda: session.User("eve", "viewer"))
    app = show("control", study="itn")
    button(app, "resume").click().run()
    assert "Only editors can change anything" in texts(app)
    assert database.events.all("itn") == ()


def test_viewers_see_all_and_give_no_order(show, steer, monkeypatch):
    steer(alive=True)
    monkeypatch.setattr(session, "user", lambda: session.User("eve", "viewer"))
    app = show("control", study="itn")
    assert "only editors can give orders" in app.info[0].value
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


@pytest.mark.long
def test_a_study_goes_on_in_a_process_of_its_own(show, study_file, fill, monkeypatch):
    plain = {"pruner": "none", "confirm": 0, "sampler": "random", "n_trials": 1}
    run_study(study_file(name="itn", search=plain), force=True)
    data.order("itn", OrderKind.ENQUEUE, actor="ada", data={"parameters": {"learning_rate": 2e-3}})
    app = show("control", study="itn")
    button(app, "resume").click().run()
    assert "Resuming itn;" in texts(app)
    process = data._started[fill.home.study("itn").folder]
    assert process.wait(120) in (0, 1), fill.home.study("itn").resume_log.read_text()
    trials = fill.database.trials.all("itn")
    assert [trial.outcome for trial in trials] == [Outcome.COMPLETE] * 2
    assert trials[1].parameters["learning_rate"] == 2e-3
    assert json.dumps(fill.database.orders.all("itn")[0].data)
    fill.home.study("itn").resolved.unlink()
    data.resume("itn", actor="ada")
    while data._started[fill.home.study("itn").folder].poll() is None:
        time.sleep(0.1)
    app = show("control", study="itn")
    assert any("failed" in error.value for error in app.error)
    assert any("cannot go on" in code.value for code in app.code)
