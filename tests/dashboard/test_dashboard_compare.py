from __future__ import annotations

import shlex

import pandas as pd
import pytest
from filled_home import HOSTILE

from sweeper.cli.main import load
from sweeper.store import Evaluation, Example, ScoreRecord
from sweeper_dashboard.charts import compare as charts
from sweeper_dashboard.data import comparison as data

MARKDOWN = ("markdown", "title", "header", "subheader", "caption", "error", "info", "warning", "success")
SECTIONS = ("Scores", "Examples", "Curves", "Differences", "Report")


def rendered(app):
    found = [str(element.value) for kind in MARKDOWN for element in app.get(kind)]
    widgets = [*app.selectbox, *app.multiselect, *app.metric, *app.tabs, *app.button]
    return found + [widget.label for widget in widgets]


def text(app):
    return "\n".join([*(text.value for text in app.text), *(code.value for code in app.code)])


def html(app):
    return "\n".join(element.proto.body for element in app.get("html"))


def score(fill, number, values, *, study="itn", prompt="prompt", word="plain"):
    """Score a trial, or the base for None, with a value an example."""
    mean = sum(values) / len(values)
    scores = tuple(ScoreRecord(name, mean, mean - 0.1, mean + 0.1) for name in ("exact_match", "token_f1"))
    examples = [
        Example(
            n,
            f"{prompt} {n}",
            f"due {n}",
            f"{word} {number} says {value:g}",
            dict.fromkeys(("exact_match", "token_f1"), value),
        )
        for n, value in enumerate(values)
    ]
    fill.database.evaluations.add(study, Evaluation(number, "test", scores), examples)


@pytest.fixture
def scored(fill):
    fill.whole()
    score(fill, None, [0.0] * 15 + [1.0] * 5)
    score(fill, 0, [1.0] * 14 + [0.0] * 6)
    score(fill, 2, [1.0] * 18 + [0.0] * 2)
    return fill


@pytest.mark.parametrize("section", SECTIONS)
def test_trials_a_version_and_the_base_side_by_side(show, scored, section):
    app = show("compare", subjects="itn:base,itn:0,itn@1", reference="itn:base", section=section)
    assert not app.error and not app.exception
    assert "itn@1 is significantly better than itn:base on exact_match; so is itn:0." in html(app)
    assert "itn@1 minus itn:base: +0.650" in text(app)
    assert app.query_params["reference"] == "itn:base"


def test_the_sections_show_what_they_are_of(show, scored):
    def of(section):
        return show("compare", subjects="itn:0,itn:2,itn:base", reference="itn:0", section=section)

    scores = of("Scores")
    assert len(scores.get("plotly_chart")) == 3
    table = scores.dataframe[1].value
    own = table[(table["metric"] == "exact_match") & (table["subject"] == "itn:2")].iloc[0]
    assert own["difference"] == pytest.approx(0.2) and own["corrected p"] >= own["p"]
    examples = of("Examples")
    counts = examples.dataframe[0].value.set_index("subject")
    assert (counts.loc["itn:2", "wins"], counts.loc["itn:2", "losses"], counts.loc["itn:2", "ties"]) == (4, 0, 16)
    assert "<del>0</del><ins>None</ins>" in html(examples) and "<ins>2</ins>" in html(examples)
    differs = of("Differences").dataframe[0].value.set_index("what")
    assert differs.loc["learning_rate", ""] == "differs" and differs.loc["learning_rate", "itn:base"] == ""
    assert len(of("Curves").get("plotly_chart")) == 1
    assert len(of("Report").get("download_button")) == 2


def test_another_reference_and_another_metric_are_kept_in_the_address(show, scored):
    app = show("compare", subjects="itn:0,itn:2")
    app.selectbox[0].select("itn:2").run()
    assert app.query_params["reference"] == "itn:2" and "itn:0 minus itn:2" in text(app)
    app.selectbox[1].select("token_f1").run()
    assert app.query_params["metric"] == "token_f1" and "The best token_f1" in text(app)


def test_subjects_are_picked_from_what_there_is(show, scored):
    known = data.choices()
    assert known[:2] == ["itn@1", "itn:base"] and {"itn:0", "itn:2", "itn:4"} <= set(known)
    app = show("compare")
    assert "Pick two to eight" in app.info[0].value
    app.multiselect[0].set_value(["itn:base", "itn:2"]).run()
    assert app.query_params["subjects"] == "itn:base,itn:2" and "itn:2 is significantly better" in html(app)


@pytest.mark.parametrize(
    ("subjects", "said"),
    [
        ("itn:0,itn:77", "has no trial 77"),
        ("itn:0,other:1", "no study 'other'"),
        ("itn:0,itn@9", "no version 9"),
        ("itn:0,nonsense", "is not a valid name"),
        (",".join(f"itn:{n}" for n in range(9)), "2 to 8 subjects; found 9"),
        ("itn:0,../../etc/passwd:1", "no study"),
        ("itn:0,itn:" + "9" * 300, "has no trial"),
    ],
)
def test_what_is_not_there_is_a_clear_page(show, scored, subjects, said):
    app = show("compare", subjects=subjects)
    assert [error.value for error in app.error] == ["This cannot be shown."] and said in text(app)


def test_eight_subjects_with_one_unscored(show, scored):
    for number in range(5, 9):
        scored.trial(number, value=2.0)
        score(scored, number, [1.0] * (10 + number) + [0.0] * (10 - number))
    keys = ",".join(f"itn:{n}" for n in (0, 1, 2, 5, 6, 7, 8))
    for section in SECTIONS:
        app = show("compare", subjects=f"{keys},itn:base", section=section)
        assert not app.error and not app.exception
    assert "No paired comparison is possible for itn:1: itn:1 was not scored on the test split." in text(app)
    assert len(data.keys(data.compare([*keys.split(","), "itn:base"]))) == 8


def test_none_scored_and_other_data(show, scored):
    app = show("compare", subjects="itn:1,itn:3")
    assert not app.error and "they cannot be ranked" in html(app)
    scored.whole("other")
    score(scored, 2, [1.0] * 20, study="other", prompt="another prompt")
    app = show("compare", subjects="itn:2,other:2", section="Examples")
    assert "different examples" in text(app) and "same examples" in app.info[0].value


def test_hostile_texts_are_only_ever_plain_text(show, scored):
    name = "<b>[x](javascript:alert(1))"
    scored.whole(name, text=HOSTILE)
    score(scored, None, [0.0] * 9, study=name, prompt=HOSTILE, word=HOSTILE)
    score(scored, 2, [1.0] * 9, study=name, prompt=HOSTILE, word="other")
    for section in SECTIONS:
        app = show("compare", subjects=f"{name}:base,{name}:2,itn:0", section=section)
        assert not app.error and not app.exception
        for shown in rendered(app):
            assert not any(mark in shown for mark in ("<script", "javascript:", "<b>", "**b**", ":red[")), shown
        for block in app.get("html"):
            assert not any(mark in block.proto.body for mark in ("<script", "<b>", "<a", "\x1b", "\u202e"))
        assert "\x1b" not in text(app) and "\u202e" not in text(app)
        for chart in app.get("plotly_chart"):
            assert "<b>[" not in chart.proto.spec
    found = data.compare([f"{name}:base", f"{name}:2"])
    assert "<script" not in data.report(found, "html") and "<script" not in data.report(found, "md")
    assert "&lt;script&gt;" in data.report(found, "html")


def test_several_base_models_are_told_apart(show, fill):
    fill.study()
    for base in ("small", "large"):
        fill.evaluate(None, 0.1, text=base, base=base)
    assert data.choices() == ["itn:base:small", "itn:base:large"]
    assert "name one: itn:base:small, itn:base:large" in text(show("compare", subjects="itn:base,itn:base:large"))
    assert not show("compare", subjects="itn:base:small,itn:base:large").error


def test_an_empty_home_and_one_without_trials_say_what_to_do(show, home):
    assert "no study has been run" in show("compare").info[0].value
    assert not home.folder.exists()


def test_without_a_trial_there_is_nothing_to_pick(show, fill):
    fill.study()
    app = show("compare")
    assert not app.error and any("nothing to pick" in caption.value for caption in app.caption)


def test_a_new_score_is_seen_and_looking_changes_nothing(show, scored):
    first = data.compare(["itn:0", "itn:2"])
    assert data.compare(["itn:0", "itn:2"]) is first, "from memory while nothing changed"
    score(scored, 2, [0.0] * 20)
    changes = scored.database.studies.get("itn").changes
    assert data.compare(["itn:0", "itn:2"]).scores["exact_match"]["itn:2"].score == 0
    show("compare", subjects="itn:0,itn:2", section="Report")
    assert scored.database.studies.get("itn").changes == changes


def test_the_command_that_is_shown_is_one(scored):
    program, name, *arguments = shlex.split(data.command(data.compare(["itn:0", "itn:2"], "itn:2")))
    params = load(name).make_context(name, arguments).params
    assert (program, list(params["subjects"]), params["reference"]) == ("sweeper", ["itn:0", "itn:2"], "itn:2")


def test_a_radar_needs_three_metrics_and_each_subject_keeps_its_look():
    rows = [(s, m, 0.5, 0.4, 0.6) for s in ("<i>", "b") for m in ("x", "y", "z")]
    scores = pd.DataFrame(rows, columns=["subject", "metric", "score", "low", "high"])
    assert {trace.type for trace in charts.profile(scores, ["x", "y", "z"], ["<i>", "b"]).data} == {"scatterpolar"}
    assert {trace.type for trace in charts.profile(scores, ["x", "y"], ["<i>", "b"]).data} == {"bar"}
    own = scores[scores["metric"] == "x"]
    both = charts.spans(own, "score", "low", "high", "x", ["<i>", "b"])
    alone = charts.spans(own.iloc[1:], "score", "low", "high", "x", ["<i>", "b"], zero=True)
    assert both.data[1].marker.color == alone.data[0].marker.color != both.data[0].marker.color
    assert both.data[1].marker.symbol != both.data[0].marker.symbol and alone.layout.shapes[0].x0 == 0
    assert both.data[0].y == ("&lt;i&gt;",)
