from __future__ import annotations

import sqlite3
import tomllib

import pytest
from filled_home import APP, HOSTILE

from sweeper.config.trial import Outcome
from sweeper.store import StudyState

MARKDOWN = ("markdown", "title", "header", "subheader", "caption", "error", "info", "warning", "success")
"""Elements that read Markdown; nothing of users or models may stand in them."""


def _rendered(app):
    """Return everything on the page that is read as Markdown or HTML."""
    found = [str(element.value) for kind in MARKDOWN for element in app.get(kind)]
    widgets = [*app.selectbox, *app.metric, *app.tabs, *app.expander]
    return found + [widget.label for widget in widgets] + [str(metric.value) for metric in app.metric]


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


def test_a_picked_study_opens(show, fill):
    fill.whole()
    fill.study("other")
    app = show()
    app.session_state["studies"] = {"selection": {"rows": [1], "columns": [], "cells": []}}
    app.run()
    assert app.title[0].value == "Study" and app.selectbox[0].value == "itn"


def test_a_study_shows_budget_leaderboard_scores_and_texts(show, fill):
    fill.whole()
    app = show("study", study="itn")
    metrics = {metric.label: metric.value for metric in app.metric}
    assert metrics["Trials"] == "5 of 6" and metrics["Epochs trained"] == "4.0 of 6"
    assert metrics["Best single value"] == "1.2"
    text = _text(app)
    assert "3 complete, 1 pruned, 1 diverged" in text and "registered as itn v1 from trial 2" in text
    assert "plain from None" in text and "plain from 2" in text, "base and winner side by side"
    assert {"mean", "seeds"} <= set(app.dataframe[0].value)
    assert len(app.get("plotly_chart")) == 5
    early = next(frame.value for frame in app.dataframe if {"outcome", "reason"} <= set(frame.value))
    assert list(early["outcome"]) == ["pruned", "diverged"]


def test_another_example_and_another_trial_can_be_picked(show, fill):
    fill.whole()
    app = show("study", study="itn")
    app.session_state["examples"] = {"selection": {"rows": [3], "columns": [], "cells": []}}
    app.selectbox(key="texts of trial").select(0).run()
    assert "prompt 3 plain" in _text(app) and "plain from 0" in _text(app)


def test_the_address_follows_the_picked_study(show, fill):
    fill.whole("one")
    fill.study("two")
    app = show("study", study="one")
    app.selectbox[0].select("two").run()
    assert app.query_params["study"] == "two"
    assert {metric.label: metric.value for metric in app.metric}["State"] == "running"


def test_a_study_under_way_shows_its_running_trial(show, fill):
    fill.study()
    fill.trial(0, value=1.0)
    fill.trial(1, None, learning_rate=1e-4)
    app = show("study")
    latest = app.dataframe[0].value
    assert list(latest["trial"]) == [1] and list(latest["at step"]) == [3]


@pytest.mark.parametrize("state", list(StudyState))
def test_a_study_without_trials_has_no_charts_and_no_faults(show, fill, state):
    fill.study()
    fill.database.studies.set_state("itn", state)
    app = show("study")
    assert not app.error and not app.get("plotly_chart")
    assert "No trial is complete yet." in [info.value for info in app.info]


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
        assert not app.get("html")
        assert "\x1b" not in _text(app) and "\u202e" not in _text(app)
    assert "<script>alert(1)</script>" in _text(show("study"))


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


def test_looking_changes_nothing(show, fill):
    fill.whole()
    before = "\n".join(_dump(fill.home.database))
    for page in ("studies", "study", "adapters"):
        show(page)
    assert "\n".join(_dump(fill.home.database)) == before


def _dump(path):
    connection = sqlite3.connect(path)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


def test_a_finished_study_without_a_winner_says_so(show, fill):
    fill.study()
    fill.trial(0, value=1.0)
    fill.database.studies.set_state("itn", StudyState.FINISHED)
    assert "no adapter of this study is registered" in _text(show("study"))


def test_streamlit_listens_to_this_machine_only_and_tells_no_one():
    settings = tomllib.loads((APP.parent / ".streamlit" / "config.toml").read_text())
    assert settings["server"]["address"] == "127.0.0.1" and "localhost" in settings["server"]["allowedHosts"]
    assert settings["browser"]["gatherUsageStats"] is False
    assert settings["client"]["showErrorDetails"] == "none", "no traceback is ever shown"
