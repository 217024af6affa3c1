"""The page Playground, its worker real: asking, streaming, blind, feedback, and who may give it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tiny
from filled_home import HOSTILE
from registered import register

from sweeper.paths import Home
from sweeper.redact import clean
from sweeper.store import Database
from sweeper_dashboard import session
from sweeper_dashboard.data import playground as data

WAIT_S = 120
"""For the worker, which imports torch."""


@pytest.fixture(autouse=True)
def _worker_ends() -> Iterator[None]:
    yield
    data.worker(Home.current()).close()
    data.worker.cache_clear()


@pytest.fixture
def two(begin: Callable[..., Any]) -> Any:
    """A study with two registered versions."""
    context = begin()
    for number in range(2):
        register(context, number=number)
    return context


def button(app, label):
    return next(each for each in app.button if each.label == label)


def texts(app):
    return [code.value for code in app.code]


def shown(app):
    return "\n".join([*(text.value for text in app.text), *texts(app)])


def ask(app, prompt="write one two: ", **settings):
    app.text_area(key="playground prompt").set_value(prompt)
    for label, value in {"Max new tokens": 8, **settings}.items():
        next(each for each in app.number_input if each.label == label).set_value(value)
    app.run()
    button(app, "Run").click().run(timeout=WAIT_S)
    assert not app.exception and not app.error, shown(app)
    return app


def kept():
    with Database.open(Home.current().database, create=False) as database:
        return database.feedback.all(), database.actions.all()


@pytest.mark.long  # asked in the browser by the journey
def test_versions_and_their_base_answer_side_by_side(show, two):
    app = show("playground", adapters="tiny@1,tiny@2,base:tiny@1")
    ask(app)
    said = texts(app)
    assert len(said) == 3 and len(set(said)) == 3 and all(text.strip() for text in said)
    names = [text.value for text in app.text]
    assert {"tiny v1, candidate", "tiny v2, candidate"} <= set(names)
    assert any(text.startswith("base model ") for text in names)
    assert sum("8 tokens, first after" in text and "tokens/s" in text for text in names) == 3


def test_a_thumb_and_a_correction_are_kept_with_who_gave_them(show, two):
    app = ask(show("playground", adapters="tiny@2"))
    answer = texts(app)[0]
    button(app, "Bad").click().run()
    assert button(app, "Bad").disabled and button(app, "Good").disabled, "one thumb an answer"
    next(each for each in app.text_area if each.label.startswith("Correct answer")).set_value("12")
    button(app, "Save correction").click().run()
    (correction, thumb), actions = kept()
    assert (thumb.adapter, thumb.version, thumb.good, thumb.correction) == ("tiny", 2, False, None)
    assert (correction.good, correction.correction) == (None, "12")
    assert (thumb.prompt, clean(thumb.answer), thumb.actor) == ("write one two: ", answer, session.user().name)
    assert thumb.settings["max_new_tokens"] == 8 and thumb.settings["blind"] is False
    assert [action.kind for action in actions] == ["feedback", "feedback", "register", "register"]
    table = app.dataframe[0].value
    assert table["rating"].tolist() == ["", "down"] and table["correction"].tolist() == ["12", ""]


def test_blind_hides_the_names_until_a_thumb(show, two):
    app = show("playground", adapters="tiny@1,tiny@2")
    app.toggle[1].set_value(True)
    ask(app)
    headings = [text.value for text in app.text]
    assert {"Answer A", "Answer B"} <= set(headings) and not any("tiny v" in text for text in headings)
    before = texts(app)
    button(app, "Good").click().run()
    assert {"tiny v1, candidate", "tiny v2, candidate"} <= {text.value for text in app.text}
    assert texts(app) == before, "the answers stay where they were"
    (given,), _ = kept()
    assert given.settings["blind"] is True and clean(given.answer) == before[0]
    named = [text.value for text in app.text if text.value.startswith("tiny v")]
    assert named[0] == f"tiny v{given.version}, candidate", "the thumb went to whose answer it was"


@pytest.mark.long
def test_an_example_of_the_test_split_fills_the_prompt(show, two):
    app = show("playground", adapters="tiny@1")
    app.selectbox(key="playground example").set_value(0).run()
    row = tiny.row("prompt_completion", 500)
    assert app.text_area(key="playground prompt").value == row["prompt"]
    button(app, "Run").click().run(timeout=WAIT_S)
    assert row["completion"] in texts(app), "what is due stands beside"


@pytest.mark.long
def test_a_conversation_is_asked_and_kept_as_one(show, begin):
    register(begin(shape="messages"))
    app = show("playground", adapters="tiny@1")
    app.text_area(key="playground system").set_value("Be brief.")
    ask(app, "write one")
    button(app, "Good").click().run()
    (given,), _ = kept()
    assert given.prompt == "write one"
    assert [turn["role"] for turn in given.settings["messages"]] == ["system", "user"]


@pytest.mark.long
def test_the_bare_base_has_its_feedback_too(show, two):
    app = ask(show("playground", adapters="base:tiny@1,tiny@1"))
    [each for each in app.button if each.label == "Good"][-1].click().run()
    (given,), _ = kept()
    assert given.adapter is None and given.version is None and given.settings["base_of"] == "tiny@1"


def test_viewers_ask_and_cannot_give_feedback(show, two, monkeypatch):
    monkeypatch.setattr(session, "user", lambda: session.User("vic", "viewer"))
    app = ask(show("playground", adapters="tiny@1"))
    assert texts(app)[0].strip()
    for label in ("Good", "Bad", "Save correction"):
        assert button(app, label).disabled and "Viewers" in button(app, label).help


def test_hostile_prompts_and_answers_stay_text(show, two):
    app = ask(show("playground", adapters="tiny@1"), HOSTILE.replace("\x1b", ""))
    button(app, "Good").click().run()
    kinds = ("markdown", "caption", "info", "warning", "error", "subheader")
    rendered = [str(element.value) for kind in kinds for element in app.get(kind)]
    assert not any("alert" in text for text in rendered) and len(app.get("html")) == 1, "the style of the page alone"
    assert "<script>" in app.dataframe[0].value["prompt"][0]


@pytest.mark.long
def test_a_crash_of_the_worker_is_told_and_it_can_be_asked_again(show, two, monkeypatch):
    app = show("playground", adapters="tiny@1")
    worker = data.worker(Home.current())
    own = worker._hear

    def crash(process, *others):
        process.kill()
        own(process, *others)

    monkeypatch.setattr(worker, "_hear", crash)
    app.text_area(key="playground prompt").set_value("x").run()
    button(app, "Run").click().run(timeout=WAIT_S)
    assert app.error[0].value == "The answers are incomplete." and "SIGKILL" in shown(app)
    monkeypatch.undo()
    monkeypatch.setenv("SWEEPER_HOME", str(two.paths.folder.parents[1]))
    ask(app)


def test_what_cannot_be_asked_is_said(show, two):
    app = show("playground", adapters="tiny@7,tiny@1")
    assert "Some versions" in app.warning[0].value and "tiny@7" in shown(app)
    assert app.multiselect[0].value == ["tiny@1"]
    app = show("playground", adapters="<script>")
    assert app.error[0].value == "This cannot be shown." and "must be NAME@VERSION" in shown(app)


def test_reward_models_are_not_offered(show, begin):
    evaluation = {"metrics": ["preference_accuracy"], "metric": "preference_accuracy"}
    register(begin(shape="preference", technique={"kind": "reward"}, evaluation=evaluation))
    assert "No adapter that generates text" in show("playground").info[0].value


def test_without_versions_it_says_what_to_do(show, fill):
    assert "No adapter that generates text" in show("playground").info[0].value


def test_settings_that_cannot_be_used_are_told(show, two):
    app = show("playground", adapters="tiny@1")
    app.text_area(key="playground prompt").set_value("x")
    app.text_input[0].set_value(",".join("abcdefghi")).run()
    assert "at most eight stop sequences" in app.error[0].value


def test_the_page_needs_no_torch():
    code = "import sys; from sweeper_dashboard.data import playground; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
