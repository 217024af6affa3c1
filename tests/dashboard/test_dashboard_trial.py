from __future__ import annotations

import shlex
import sqlite3

import pandas as pd
import pytest
import yaml
from filled_home import HOSTILE

from sweeper.cli.main import load
from sweeper.config.loader import load_study
from sweeper.config.trial import Outcome
from sweeper.paths import Home
from sweeper.store import Example, PruningDecision, TrialKind
from sweeper_dashboard.charts import trial as charts
from sweeper_dashboard.data import search, trial_files
from sweeper_dashboard.data import trials as data

SEARCHED = {
    "learning_rate": [1e-3, 5e-3],
    "lora_alpha": ["r", "2r"],
    "target_modules": [["q_proj", "v_proj"], "all-linear"],
    "lr_scheduler": ["linear", "cosine"],
}
MARKDOWN = ("markdown", "title", "header", "subheader", "caption", "error", "info", "warning", "success")
SECTIONS = ("Curves", "Parameters", "Evaluations", "Run and files", "Run it again")
MARKS = ("<script", "javascript:", "<b>", "**b**", ":red[")


def rendered(app):
    """Return everything on the page that is read as Markdown."""
    found = [str(element.value) for kind in MARKDOWN for element in app.get(kind)]
    widgets = [*app.selectbox, *app.metric, *app.tabs, *app.expander, *app.button, *app.number_input]
    return found + [widget.label for widget in widgets] + [str(metric.value) for metric in app.metric]


def text(app):
    return "\n".join([*(text.value for text in app.text), *(code.value for code in app.code)])


def html(app):
    return "\n".join(element.proto.body for element in app.get("html"))


def parsed(command: str) -> dict:
    """Parse a command that the page shows as the shell and the command line would, without running it."""
    program, name, *arguments = shlex.split(command)
    assert program == "sweeper"
    return load(name).make_context(name, arguments).params


def test_the_best_trial_is_shown_where_none_is_named(show, fill):
    fill.whole()
    app = show("trial", study="itn")
    metrics = {metric.label: metric.value for metric in app.metric}
    assert app.query_params["trial"] == "2" and metrics["Place"] == "1 of 3" and metrics["State"] == "complete"
    assert "registered as itn v1" in text(app)
    assert len(app.get("plotly_chart")) >= 2


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("number", ["0", "1", "3", "4"])
def test_every_section_of_every_kind_of_trial(show, fill, section, number):
    fill.whole()
    app = show("trial", study="itn", trial=number, section=section)
    assert not app.error and not app.exception
    assert app.session_state["section"] == section and app.query_params["trial"] == number


def test_next_previous_best_and_a_number_move_the_address(show, fill):
    fill.whole()
    app = show("trial", study="itn", trial="0")
    buttons = {button.label: button for button in app.button}
    assert buttons["Previous"].disabled
    buttons["Next"].click().run()
    assert app.query_params["trial"] == "1" and "worse than others" in text(app)
    next(button for button in app.button if button.label == "Best").click().run()
    assert app.query_params["trial"] == "2"
    app.number_input[0].set_value(4).run()
    assert app.query_params["trial"] == "4" and "repeats trial 0" in text(app)
    assert next(button for button in app.button if button.label == "Next").disabled


@pytest.mark.parametrize("wanted", ["99", "-1", "x", "9" * 400, "²"])
def test_a_trial_that_is_not_there(show, fill, wanted):
    fill.whole()
    app = show("trial", study="itn", trial=wanted)
    if wanted.isascii() and wanted.isdigit():
        assert app.error and "has no trial" in text(app)
    else:
        assert app.query_params["trial"] == "2", "what is no number is as if it were not there"


def test_studies_that_are_not_there_or_have_no_trial(show, fill):
    app = show("trial", study="nothing")
    assert app.error and "no study" in text(app)
    fill.study("empty")
    assert "no trial yet" in show("trial", study="empty").info[0].value


def test_an_empty_home_says_what_to_do(show, home):
    assert "no study has been run" in show("trial").info[0].value
    assert not home.folder.exists()


def test_a_running_trial_is_followed(show, fill):
    fill.study()
    fill.trial(0, None)
    app = show("trial", study="itn")
    metrics = {metric.label: metric.value for metric in app.metric}
    assert metrics["State"] == "running" and metrics["Place"] == "unranked"


def test_hostile_texts_are_only_ever_plain_text(show, fill):
    name = "<b>[x](javascript:alert(1))"
    fill.whole(name, text=HOSTILE)
    fill.database.events.add(name, "note", HOSTILE, number=2)
    for section in SECTIONS:
        app = show("trial", study=name, trial="2", section=section)
        assert not app.error
        for shown in rendered(app):
            assert not any(mark in shown for mark in MARKS), (section, shown)
        assert "\x1b" not in text(app) and "\u202e" not in text(app)
        for block in app.get("html"):
            assert not any(mark in block.proto.body for mark in ("<script", "<b>", "<a", "\x1b", "\u202e"))
    assert "&lt;script&gt;" in html(show("trial", study=name, trial="2", section="Evaluations"))


def test_wins_and_losses_are_filtered_and_their_texts_marked(show, fill):
    fill.whole()
    scores = (1.0, 0.0, 1.0, 0.0), (0.0, 1.0, 1.0, 0.0)
    for number, own in zip((2, None), scores, strict=True):
        found = [
            Example(n, f"prompt {n}", "due", f"{'tuned' if number else 'bare'} answer {n}", {"exact_match": s})
            for n, s in enumerate(own)
        ]
        evaluation = next(e for e in fill.database.evaluations.all("itn") if e.number == number)
        fill.database.evaluations.add("itn", evaluation, found)
    examples = data.examples(data.trial("itn", 2), "test", "exact_match")
    assert list(examples["won"]) == ["win", "loss", "tie", "tie"]
    app = show("trial", study="itn", trial="2", section="Evaluations")
    assert "<del>bare</del><ins>tuned</ins> answer 0" in html(app)
    app.button_group[1].set_value("loss").run()
    assert "<ins>tuned</ins> answer 1" in html(app) and "answer 0" not in html(app)


def test_parameters_stand_beside_the_best_and_the_range(fill):
    fill.whole()
    fill.database.studies.set_config("itn", fill.database.studies.get("itn").config)
    found = data.parameters(data.trial("itn", 0)).set_index("hyperparameter")
    assert found.loc["learning_rate", ""] == "differs" and found.loc["batch_size", ""] == ""
    assert (found.loc["learning_rate", "this trial"], found.loc["learning_rate", "best, trial 2"]) == ("0.001", "0.002")
    assert list(found[""])[:2] == ["differs", "differs"], "those that differ come first"


def test_ranges_are_told_of_each_alternative():
    ranges = {"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}, "lora.epochs": 2, "x.epochs": [1, 2]}
    assert data._range(ranges, "learning_rate") == "1e-05 to 0.001, log"
    assert data._range(ranges, "epochs") == "lora: always 2; x: one of 1, 2"
    assert data._range(ranges, "trl.optim") == "not searched" == data._range({"a": {"low": 3}}, "a")


def test_the_field_is_of_trials_of_the_same_length_at_equal_progress(fill):
    fill.study()
    for number in range(5):
        fill.trial(number, value=float(number))
    band, of, out_of = data.field(data.trial("itn", 4))
    assert (of, out_of) == (4, 4)
    last = band.iloc[-1]
    assert last["percent"] == 100 and last["trials"] == 4
    assert last["median"] == pytest.approx(1.5 + 1 / 6) and last["low"] < last["median"] < last["high"]


def test_relations_go_both_ways(fill):
    fill.whole()
    assert data.trial("itn", 4).relations == (("repeats", 0),)
    assert data.trial("itn", 0).relations == (("repeated by", 4),)


def test_files_and_the_ends_of_logs_without_secrets(show, fill):
    fill.whole()
    paths = Home.current().study("itn").trial(1)
    paths.folder.mkdir(parents=True)
    token = "hf_" + "a" * 34
    paths.error(0).write_text("\n".join(["old"] * 2000 + [f"Traceback {token}", "\x1b[31mRuntimeError: boom"]))
    paths.log(2).write_text("a line of rank 2")
    shown = trial_files.logs(data.trial("itn", 1))
    assert list(shown) == ["error.txt", "process-2.log"]
    assert shown["error.txt"].endswith("RuntimeError: boom") and shown["error.txt"].startswith("...")
    assert token not in shown["error.txt"] and "\x1b" not in shown["error.txt"]
    assert len(shown["error.txt"].splitlines()) < 400
    assert list(trial_files.files(data.trial("itn", 1))["file"]) == ["error.txt", "process-2.log"]
    app = show("trial", study="itn", trial="1", section="Run and files")
    assert "RuntimeError: boom" in text(app) and "a line of rank 2" in text(app)


def test_a_name_that_leads_out_of_the_home_has_no_files(show, fill):
    fill.whole("../../etc")
    found = data.trial("../../etc", 0)
    assert trial_files.files(found).empty and trial_files.logs(found) == {}
    assert not show("trial", study="../../etc", trial="0", section="Run it again").error


DECISION = PruningDecision(
    progress=50,
    pruner="auto",
    rung=33,
    value=1.53,
    rank=4,
    peers=3,
    continuing=2,
    threshold=1.4,
    pruned=True,
    reason="At the 33 % rung its value of 1.53 ranked 4 of 4 trials. Decision: prune.",
    compared=((0, 1.33), (1, 1.4), (2, 1.5)),
)


def test_why_it_was_pruned_is_shown(show, fill):
    fill.study()
    fill.trial(3, Outcome.PRUNED, value=1.2, reason="worse than other trials at the same progress")
    before = text(show("trial", study="itn", trial="3"))
    assert "It has not been judged" in before
    fill.database.decisions.add("itn", 3, DECISION)
    (decision,) = data.decided(data.pruning(data.trial("itn", 3))).to_dict("records")
    assert decision == {
        "rung %": 33,
        "at %": 50,
        "value": 1.53,
        "rank": "4 of 4",
        "continue": 2,
        "needed": 1.4,
        "decision": "pruned",
        "compared with": "0: 1.33, 1: 1.4, 2: 1.5",
    }
    shown = text(show("trial", study="itn", trial="3"))
    assert DECISION.reason in shown and "It has not been judged" not in shown


def test_a_study_of_before_says_that_its_pruning_decisions_were_not_recorded(show, fill):
    fill.study()
    fill.trial(0, Outcome.PRUNED, value=1.2)
    with sqlite3.connect(fill.database.address) as connection:  # as the migration leaves it
        connection.execute("UPDATE sweeper_trials SET decisions_recorded = NULL")
    connection.close()
    app = show("trial", study="itn", trial="0")
    assert not app.exception and "This study was run before pruning decisions were recorded." in text(app)


@pytest.mark.parametrize(
    ("changes", "confirms", "words"),
    [
        ({"search": {"pruner": "none"}}, None, "this study prunes nothing"),
        ({"evaluation": {"metric": "eval_loss", "objectives": ["adapter_size"]}}, None, "several objectives"),
        ({}, 0, "a trial that repeats a good one with a fresh seed is never pruned"),
    ],
)
def test_why_nothing_was_judged_is_shown(show, fill, changes, confirms, words):
    fill.study()
    config = fill.database.studies.get("itn").config
    fill.database.studies.set_config("itn", {**config, **changes})
    fill.trial(0, value=1.0)
    fill.trial(1, value=1.0, confirms=confirms)
    pruning = data.pruning(data.trial("itn", 1))
    assert words in pruning.note and not pruning.decisions


def test_a_configuration_of_another_version_has_no_pruner(fill):
    fill.study()
    for config in ({"of": "the future", "search": {"pruner": {"kind": "oracle"}}}, {"search": 3}):
        fill.database.studies.set_config("itn", config)
        assert search.pruner_of(fill.database.studies.get("itn")).kind == "none"


def test_every_command_that_is_shown_is_one(fill):
    fill.whole()
    found = data.trial("itn", 2)
    exported = parsed(trial_files.export_command(found))
    assert (exported["name"], exported["version"], exported["format"]) == ("itn", 1, "trl")
    assert str(parsed(trial_files.run_command(found))["file"]) == "itn-trial-2.yaml"
    assert trial_files.export_command(data.trial("itn", 0)) is None
    assert shlex.split(trial_files.clone_command(found)) == ["sweeper", "clone", "itn", "2"]
    assert {"itn", 2} <= set(parsed(trial_files.clone_command(found)).values())


def test_the_study_file_of_a_real_trial_is_one(begin, show, tmp_path):
    from sweeper.executors.lifecycle.trial_spec import specification

    context = begin()
    candidate = context.search.ask()
    spec = specification(context, candidate)
    context.database.trials.start(spec, TrialKind.SAMPLED, total_steps=6)
    paths = context.paths.trial(spec.number)
    paths.folder.mkdir(parents=True)
    paths.spec.write_text(spec.model_dump_json())
    app = show("trial", study="tiny", trial="0", section="Run it again")
    assert not app.error and "sweeper run tiny-trial-0.yaml" in text(app)
    shown = next(code.value for code in app.code if "name: tiny-trial-0" in code.value)
    (file := tmp_path / "again.yaml").write_text(shown)
    assert load_study(file).config.search.n_trials == 1
    assert yaml.safe_load(shown)["search"]["space"]["learning_rate"] == spec.hyperparameters.learning_rate


def test_a_trial_that_began_from_weights_is_run_again_from_them(begin, show):
    from sweeper.cli.orders import _parsed
    from sweeper.executors.lifecycle.trial_spec import specification

    context = begin(search={"space": SEARCHED, "n_trials": 1, "known_good": False})
    values = {"learning_rate": 1e-3, "lora_alpha": "2r", "target_modules": "all-linear", "lr_scheduler": "linear"}
    context.search.order(1, values)
    original = context.search.ask_ordered()
    changes = {"learning_rate": 5e-3, "lr_scheduler": "cosine"}
    cloned = {**context.search.values(original.number), **changes}
    context.search.order(2, cloned, clones=original.number, initial=original.number)
    for candidate in (original, context.search.ask_ordered()):
        spec = specification(context, candidate)
        context.database.trials.start(spec, candidate.kind, clones=candidate.clones)
        paths = context.paths.trial(spec.number)
        paths.folder.mkdir(parents=True)
        paths.spec.write_text(spec.model_dump_json())
    found = data.trial("tiny", spec.number)
    command = shlex.split(trial_files.clone_command(found))
    assert command[:4] == ["sweeper", "clone", "tiny", str(original.number)] and command[-1] == "--from-weights"
    assert _parsed(command[4:-1]) == changes
    app = show("trial", study="tiny", trial=str(spec.number), section="Run it again")
    captions = " ".join(each.value for each in app.caption)
    assert not app.error and f"not the weights of trial {original.number}, so results will differ" in captions
    assert "This is not a repetition" in text(app)
    first = data.trial("tiny", original.number)
    assert shlex.split(trial_files.clone_command(first)) == ["sweeper", "clone", "tiny", str(original.number)]


def test_looking_at_a_trial_changes_nothing(show, fill):
    fill.whole()
    before = fill.database.studies.get("itn").changes
    for section in SECTIONS:
        show("trial", study="itn", trial="1", section=section)
    assert fill.database.studies.get("itn").changes == before


def test_the_trial_is_drawn_on_its_field_with_rungs_and_decisions():
    points = pd.DataFrame({"percent": [33.0, 67.0], "value": [2.0, float("inf")]})
    band = pd.DataFrame({"percent": [33.0], "low": [1.0], "median": [1.5], "high": [3.0]})
    decisions = pd.DataFrame({"at %": [33], "value": [2.0], "needed": [1.4], "decision": ["pruned"]})
    figure = charts.judged(points, band, "<b>loss", (33, 67), decisions, "pruned")
    names = [trace.name for trace in figure.data if trace.name]
    assert names == ["other trials, middle half", "other trials, median", "this trial", "needed to go on", "pruned"]
    assert len(figure.layout.shapes) == 2 and figure.layout.yaxis.title.text == "&lt;b&gt;loss"
    bare = charts.judged(points, band.iloc[:0], "loss")
    assert [trace.name for trace in bare.data] == ["this trial"]


def test_long_curves_are_thinned_and_keep_their_end():
    points = pd.DataFrame({"metric": "loss", "value": range(10_001), "step": range(10_001)})
    shown = charts.thinned(points)
    assert len(shown) <= charts.MOST_POINTS and shown["step"].iloc[-1] == 10_000
    figure = charts.panels(points, ["loss"], "step", 0.9)["loss"]
    assert [trace.name for trace in figure.data] == ["reported", "smoothed"]
    assert [trace.name for trace in charts.panels(points, ["loss"], "step", 0.0)["loss"].data] == ["reported"]
