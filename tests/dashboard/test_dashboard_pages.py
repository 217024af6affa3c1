from __future__ import annotations

import getpass
import hashlib
import json
import os
import shutil
import sqlite3
import tomllib

import pytest
from filled_home import APP, HOSTILE, Filler

from sweeper.config.trial import Outcome
from sweeper.store import Database, StudyState
from sweeper_dashboard import session
from sweeper_dashboard.data import home as homes
from sweeper_dashboard.data import studies as data

PAGES = ("studies", "study", "trial", "compare", "control", "training_data", "adapters", "playground")

MARKDOWN = ("markdown", "title", "header", "subheader", "caption", "error", "info", "warning", "success")
"""Elements that read Markdown; nothing of users or models may stand in them."""


def _rendered(app):
    """Return everything on the page that is read as Markdown or HTML."""
    found = [str(element.value) for kind in MARKDOWN for element in app.get(kind)]
    widgets = [*app.selectbox, *app.metric, *app.tabs, *app.expander]
    return found + [widget.label for widget in widgets] + [str(metric.value) for metric in app.metric]


def _press(app, label):
    next(button for button in app.button if button.label == label).click().run()
    assert not app.exception, app.exception


def _text(app):
    return "\n".join([*(text.value for text in app.text), *(code.value for code in app.code)])


@pytest.mark.parametrize("page", ["studies", "study", "adapters"])
def test_an_empty_home_says_what_to_do_and_stays_empty(show, home, page):
    app = show(page)
    assert "no study has been run" in app.info[0].value
    assert app.code[0].value == "sweeper run studies/quickstart.yaml"
    assert not home.folder.exists()


@pytest.mark.parametrize("page", ["studies", "study", "adapters"])
def test_a_database_without_studies_is_no_fault(show, fill, page):
    app = show(page)
    assert not app.error and len(app.info) == 1


def test_studies_are_listed_with_state_trials_and_best_value(show, fill):
    fill.whole()
    (table,) = show().dataframe
    row = table.value.iloc[0]
    assert (row["study"], row["state"], row["trials"], row["best"]) == ("itn", "finished", "5 of 6", 1.2)
    assert (row["test"], row["base"], row["progress"]) == (0.9, 0.1, pytest.approx(5 / 6))
    assert list(row["course"]) == [1.5, 1.2, 1.2]


def test_a_clicked_study_opens(show, fill):
    fill.whole()
    fill.study("other")
    app = show()
    app.session_state["studies"] = {"selection": {"rows": [], "columns": [], "cells": [[1, "study"]]}}
    app.run()
    assert app.title[0].value == "Study" and app.selectbox[0].value == "itn"


@pytest.mark.parametrize(
    ("query", "expected"),
    [({"search": "BIG"}, ["big"]), ({"search": "night"}, ["small"]), ({"state": "finished"}, ["small"]), ({}, 2)],
)
def test_studies_can_be_searched_and_filtered_by_the_address(show, fill, query, expected):
    fill.whole("small")
    fill.study("big")
    data.tag(["small"], ["nightly"], "ada")
    (table,) = show("studies", **query).dataframe
    assert list(table.value["study"]) == expected or len(table.value) == expected


def test_ticked_studies_are_tagged_and_archived_with_who_did_it(show, fill):
    fill.whole("one")
    fill.whole("two")
    app = show()
    app.session_state["studies"] = {"selection": {"rows": [0, 1], "columns": [], "cells": []}}
    app.run()
    tags = next(box for box in app.text_input if box.label.startswith("Tags"))
    tags.set_value("night, gpu")
    _press(app, "Save tags")
    assert [study.tags for study in data.studies()] == [("night", "gpu")] * 2
    app.session_state["studies"] = {"selection": {"rows": [0], "columns": [], "cells": []}}
    app.run()
    _press(app, "Archive")
    assert sorted(study.archived for study in data.studies()) == [False, True]
    assert [len(table.value) for table in show("studies", archived="true").dataframe] == [1]
    assert {action.actor for action in fill.database.actions.all()} == {getpass.getuser()}


def test_a_viewer_can_change_nothing(show, fill, monkeypatch):
    monkeypatch.setattr(session, "user", lambda: session.User("guest", "viewer"))
    fill.whole()
    app = show()
    app.session_state["studies"] = {"selection": {"rows": [0], "columns": [], "cells": []}}
    app.run()
    assert {button.label: button.disabled for button in app.button} == {"Save tags": True, "Archive": True}


@pytest.mark.parametrize("label", ["Save tags", "Archive"])
def test_the_role_is_looked_at_when_a_click_arrives(show, fill, monkeypatch, closed_buttons_work, label):
    monkeypatch.setattr(session, "user", lambda: session.User("guest", "viewer"))
    fill.whole()
    app = show()
    app.session_state["studies"] = {"selection": {"rows": [0], "columns": [], "cells": []}}
    app.run()
    _press(app, label)
    assert [(study.tags, study.archived) for study in data.studies()] == [((), False)]
    assert fill.database.actions.all() == ()


def test_a_study_shows_budget_and_leaderboard(show, fill):
    fill.whole()
    app = show("study", study="itn")
    metrics = {metric.label: metric.value for metric in app.metric}
    assert metrics["Trials"] == "5 of 6" and metrics["Epochs trained"] == "4.0 of 6"
    assert metrics["Best single value"] == "1.2" and metrics["Time left"] == "–"
    text = _text(app)
    assert "3 complete, 1 pruned, 1 diverged" in text and "trial 2 is registered as itn v1" in text
    assert "test exact_match: trial 2 0.900, base model 0.100 (+0.900" in text
    assert {"mean", "seeds"} <= set(app.dataframe[0].value)
    early = next(frame.value for frame in app.dataframe if {"outcome", "reason"} <= set(frame.value))
    assert list(early["outcome"]) == ["diverged", "pruned"]


CHARTS = {"Overview": 1, "Curves": 1, "Parameters": 4, "Schedule": 2, "Scores": 2, "Outputs": 0, "Study file": 0}


@pytest.mark.parametrize("section", CHARTS)
def test_every_section_opens_by_its_address(show, fill, section):
    fill.study()
    for number in range(6):
        fill.trial(number, value=1.0 + number, learning_rate=10.0 ** (number - 6), seed=number, batch_size=4 + number)
    fill.evaluate(None, 0.1)
    fill.evaluate(0, 0.7)
    app = show("study", study="itn", section=section)
    assert not app.error
    assert len(app.get("plotly_chart")) == CHARTS[section]


def test_a_study_with_several_objectives_shows_its_front(show, fill):
    fill.study(config={"evaluation": {"metric": "eval_loss", "objectives": ["parameters"]}, "search": {"n_trials": 6}})
    for number in range(5):
        size = 1_000 * (number + 1)
        fill.trial(number, value=2.0 - number / 10, learning_rate=10.0 ** (number - 6), parameters=size)
    fill.trial(5, value=2.5, learning_rate=0.5, parameters=9_000)
    app = show("study", study="itn", section="Parameters")
    assert not app.error
    (front,) = (json.loads(chart.proto.spec) for chart in app.get("plotly_chart"))
    dominated, best = (trace["text"] for trace in front["data"])
    assert (len(dominated), len(best)) == (1, 5), "the sixth is worse and larger than the others"
    for section in ("Overview", "Curves", "Schedule", "Scores", "Outputs", "Study file"):
        assert not show("study", study="itn", section=section).error
    assert "additional objectives, so there is no single best trial: parameters" in _text(app)


def test_what_is_picked_in_the_leaderboard_is_picked_in_the_charts_and_stays_in_the_address(show, fill):
    fill.whole()
    app = show("study", study="itn")
    app.session_state["leaderboard 0"] = {"selection": {"rows": [0], "columns": [], "cells": []}}
    app.run()
    leader = int(app.dataframe[0].value["trial"].iloc[0])
    picked = show("study", study="itn", trials=str(leader))
    assert f"Selected: trial {leader}" in _text(picked)
    figure = json.loads(picked.get("plotly_chart")[0].proto.spec)
    assert [figure["data"][0]["customdata"][n] for n in figure["data"][0]["selectedpoints"]] == [leader]
    curves = json.loads(show("study", study="itn", trials="1", section="Curves").get("plotly_chart")[0].proto.spec)
    assert "trial 1" in [trace["name"] for trace in curves["data"]]
    _press(picked, "Clear selection")
    assert "Selected" not in _text(picked) and "trials" not in picked.query_params


@pytest.mark.parametrize("trials", ["", "x", "1,,2", "-1", "9" * 400, "1;drop table", "٣"])
def test_any_selection_in_the_address_is_no_fault(show, fill, trials):
    fill.whole()
    assert not show("study", study="itn", trials=trials).error


def test_another_example_and_another_trial_can_be_picked(show, fill):
    fill.whole()
    app = show("study", study="itn", section="Outputs")
    assert "plain from None" in _text(app) and "plain from 2" in _text(app), "base and winner side by side"
    app.session_state["examples"] = {"selection": {"rows": [3], "columns": [], "cells": []}}
    app.selectbox(key="texts of trial").select(0).run()
    assert "prompt 3 plain" in _text(app) and "plain from 0" in _text(app)


def test_the_address_follows_the_picked_study(show, fill):
    fill.whole("one")
    fill.study("two")
    with fill.held("two"):
        app = show("study", study="one", trials="2")
        app.selectbox[0].select("two").run()
        assert app.query_params["study"] == "two" and "trials" not in app.query_params
        assert {metric.label: metric.value for metric in app.metric}["State"] == "running"


def test_a_study_under_way_shows_its_running_trial(show, fill):
    fill.study()
    fill.trial(0, value=1.0)
    fill.trial(1, None, learning_rate=1e-4)
    app = show("study")
    latest = next(frame.value for frame in app.dataframe if "at step" in frame.value)
    assert list(latest["trial"]) == [1] and list(latest["at step"]) == [3]


@pytest.mark.parametrize("state", list(StudyState))
def test_a_study_without_trials_has_no_charts_and_no_faults(show, fill, state):
    fill.study()
    fill.database.studies.set_state("itn", state)
    app = show("study")
    assert not app.error and not app.get("plotly_chart")
    assert "No trial has completed yet." in [info.value for info in app.info]


def test_a_study_where_all_trials_failed(show, fill):
    fill.study()
    fill.trial(0, Outcome.FAILED, reason="a bug")
    fill.trial(1, Outcome.INFEASIBLE, learning_rate=1e-2, reason="does not fit")
    app = show("study")
    assert not app.error
    assert {metric.label: metric.value for metric in app.metric}["Best single value"] == "none yet"


@pytest.mark.parametrize("wanted", ["../../etc/passwd", "' OR 1=1 --", HOSTILE, "", "x" * 5000])
def test_an_unknown_study_in_the_address_is_a_clear_page(show, fill, wanted):
    fill.study()
    app = show("study", study=wanted)
    assert [error.value for error in app.error] == ["This cannot be shown."]
    assert "no study" in _text(app)
    assert not app.metric


def test_hostile_texts_are_only_ever_plain_text(show, fill):
    fill.whole("<b>[x](javascript:alert(1))", text=HOSTILE)
    for page in ("studies", "study", "adapters"):
        app = show(page)
        assert app.dataframe and not app.error
        for shown in _rendered(app):
            assert not any(mark in shown for mark in ("<script", "javascript:", "<b>", "**b**", ":red[")), (page, shown)
        assert all("script" not in html.proto.body for html in app.get("html"))
        assert "\x1b" not in _text(app) and "\u202e" not in _text(app)
    for section in ("Study file", "Outputs", "Curves", "Parameters", "Schedule", "Scores"):
        app = show("study", section=section)
        assert not app.error and all("script" not in html.proto.body for html in app.get("html"))
        assert not any("<script" in shown or ":red[" in shown for shown in _rendered(app)), section
    assert "<script>alert(1)</script>" in _text(show("study", section="Outputs"))


def test_a_newer_schema_is_a_clear_page(show, fill):
    fill.whole()
    with sqlite3.connect(fill.home.database) as connection:
        (table,) = connection.execute(
            "SELECT name FROM sqlite_master WHERE name LIKE 'sweeper_%version%' AND type = 'table'"
        ).fetchone()
        connection.execute(f"UPDATE {table} SET version_num = '9999'")
    connection.close()
    app = show()
    assert app.error and "upgrade sweeper" in _text(app)


def test_a_file_that_is_no_database_is_a_clear_page(show, home):
    home.folder.mkdir(parents=True)
    home.database.write_text("not a database")
    app = show("adapters")
    assert app.error and "is not an SQLite database" in _text(app)
    assert home.database.read_text() == "not a database"


def test_looking_changes_not_a_byte(show, home):
    with Database.open(home.database, create=True) as database:
        Filler(home, database).whole()
    before = _files(home)
    for page in PAGES:
        show(page)
    assert _files(home) == before


def test_looking_while_a_write_is_under_way_changes_nothing_and_waits_for_nothing(show, fill):
    fill.whole()
    writer = sqlite3.connect(fill.home.database, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE sweeper_studies SET state = 'interrupted'")
    app = show()
    assert not app.error and app.dataframe[0].value["state"].iloc[0] == "finished"
    writer.execute("ROLLBACK")
    writer.close()


def test_what_a_crash_left_in_the_log_is_seen_and_stays_there(show, home, tmp_path):
    """A process that is killed leaves its last writes beside the file; looking does not move them into it."""
    with Database.open(home.database, create=True) as database:
        Filler(home, database).whole()
        shutil.copytree(home.folder, tmp_path / "killed")
    os.environ["SWEEPER_HOME"] = str(tmp_path / "killed")
    before = (tmp_path / "killed" / "sweeper.db").read_bytes()
    assert len(show().dataframe[0].value) == 1
    assert (tmp_path / "killed" / "sweeper.db").read_bytes() == before


def test_a_locked_database_is_a_clear_page(show, fill, monkeypatch):
    fill.whole()
    fill.database.close()
    monkeypatch.setattr(homes, "_BUSY_TIMEOUT_S", 0.2)
    holder = sqlite3.connect(fill.home.database, isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    app = show()
    assert app.error and "is locked by another process" in _text(app)
    holder.close()


def test_an_older_schema_is_a_clear_page_and_stays(show, fill):
    fill.whole()
    with sqlite3.connect(fill.home.database) as connection:
        connection.execute("UPDATE sweeper_alembic_version SET version_num = '0002'")
    connection.close()
    app = show()
    assert app.error and "`sweeper status` brings it up to date" in _text(app)
    with sqlite3.connect(fill.home.database) as connection:
        assert connection.execute("SELECT version_num FROM sweeper_alembic_version").fetchone() == ("0002",)
    connection.close()


def test_an_empty_file_is_a_clear_page(show, home):
    home.folder.mkdir(parents=True)
    home.database.touch()
    app = show()
    assert app.error and "is empty" in _text(app)


def _files(home):
    """Return what the database is made of; a log without writes and its index, which is shared memory, are nothing."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in home.folder.glob("sweeper.db*")
        if path.stat().st_size and not path.name.endswith("-shm")
    }


def test_a_finished_study_without_a_winner_says_so(show, fill):
    fill.study()
    fill.trial(0, value=1.0)
    fill.database.studies.set_state("itn", StudyState.FINISHED)
    assert "no adapter was registered from this study" in _text(show("study"))


def test_streamlit_listens_to_this_machine_only_and_tells_no_one():
    settings = tomllib.loads((APP.parent / ".streamlit" / "config.toml").read_text())
    assert settings["server"]["address"] == "127.0.0.1" and "localhost" in settings["server"]["allowedHosts"]
    assert settings["browser"]["gatherUsageStats"] is False
    assert settings["client"]["showErrorDetails"] == "none", "no traceback is ever shown"
