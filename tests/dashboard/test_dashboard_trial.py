from __future__ import annotations

import pytest

MARKDOWN = ("markdown", "title", "header", "subheader", "caption", "error", "info", "warning", "success")
PARTS = ("Curves", "Parameters", "Evaluations", "Run and files", "Run it again")


def rendered(app):
    """Return everything on the page that is read as Markdown."""
    found = [str(element.value) for kind in MARKDOWN for element in app.get(kind)]
    widgets = [*app.selectbox, *app.metric, *app.tabs, *app.expander, *app.button, *app.number_input]
    return found + [widget.label for widget in widgets] + [str(metric.value) for metric in app.metric]


def text(app):
    return "\n".join([*(text.value for text in app.text), *(code.value for code in app.code)])


def html(app):
    return "\n".join(element.proto.body for element in app.get("html"))


def test_the_best_trial_is_shown_where_none_is_named(show, fill):
    fill.whole()
    app = show("trial", study="itn")
    metrics = {metric.label: metric.value for metric in app.metric}
    assert app.query_params["trial"] == "2" and metrics["Place"] == "1 of 3" and metrics["State"] == "complete"
    assert "registered as itn v1" in text(app)
    assert len(app.get("plotly_chart")) >= 2


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("number", ["0", "1", "3", "4"])
def test_every_part_of_every_kind_of_trial(show, fill, part, number):
    fill.whole()
    app = show("trial", study="itn", trial=number, section=part)
    assert not app.error and not app.exception
    assert app.session_state["section"] == part
