from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import pytest
from filled_home import APP, HOSTILE

from sweeper.config.trial import Outcome
from sweeper.errors import StudyStateError, UserError
from sweeper.store import OrderKind, OrderState
from sweeper.study.orders import is_run
from sweeper_dashboard.data import adapters as adapter_data
from sweeper_dashboard.data import home as homes
from sweeper_dashboard.data import search
from sweeper_dashboard.data import studies as data


def test_no_database_is_said_and_none_is_made(home):
    with pytest.raises(homes.NothingYet, match="no database at"):
        data.studies()
    assert not home.folder.exists()


def test_studies_stand_with_what_they_spent_the_latest_first(fill):
    fill.whole("first")
    fill.study("second")
    fill.trial(0, None, study="second")
    with fill.held("second"):
        second, first = data.studies()
    assert (second.name, second.running, second.done, second.best) == ("second", True, 0, None)
    assert (first.name, first.running, first.done, first.n_trials, first.best) == ("first", False, 5, 6, 1.2)
    assert first.outcomes == {"complete": 3, "pruned": 1, "diverged": 1}
    assert (first.train_seconds, first.timeout_s, first.epochs) == (150.0, 600.0, pytest.approx(4.0))


def test_a_confirmed_configuration_leads_over_a_lucky_one_and_an_unstable_one_comes_last(fill):
    fill.study()
    fill.trial(0, value=1.0, learning_rate=1e-2)
    fill.trial(1, value=1.4, learning_rate=1e-3)
    fill.trial(2, value=1.2, learning_rate=1e-4)
    fill.trial(3, value=1.6, learning_rate=1e-3, confirms=1)
    fill.trial(4, Outcome.DIVERGED, learning_rate=1e-2, confirms=0)
    leaders = data.study("itn").snapshot.leaders
    assert list(leaders["trial"]) == [1, 2, 0]
    assert list(leaders["mean"]) == pytest.approx([1.5, 1.2, 1.0])
    assert list(leaders["seeds"]) == [2, 1, 1]
    assert leaders["best seed"][0] == 1.4
    assert list(leaders["learning_rate"]) == [1e-3, 1e-4, 1e-2]


def test_only_what_differs_is_a_column_and_the_rest_is_said_once(fill):
    fill.whole()
    study = data.study("itn")
    assert study.snapshot.varied == ["learning_rate", "trl.optim"]
    assert set(study.snapshot.varied) <= set(study.snapshot.table)
    assert "batch_size 8" in study.constant and "trl.adam_beta2 0.99" in study.constant
    assert "learning_rate" not in study.constant


def test_pruned_trials_keep_their_reason(fill):
    fill.whole()
    trials = data.study("itn").snapshot.table.set_index("trial")
    assert trials.loc[1, "outcome"] == "pruned" and trials.loc[1, "reason"] == "worse than others plain"
    assert trials.loc[4, "kind"] == "repeat of 0"


def test_scores_and_the_registered_trial_first(fill):
    fill.whole()
    study = data.study("itn")
    assert list(study.scores["subject"].unique()) == ["base model", "trial 0", "trial 2"]
    assert study.scored("test") == [2, 0]
    assert study.registered == (("itn v1", 2),)
    assert study.scores.loc[study.scores["subject"] == "base model", "diff_to_base"].isna().all()


def test_examples_stand_beside_those_of_the_base(fill):
    fill.whole()
    examples = data.examples("itn", 2, "test", "exact_match")
    assert len(examples) == 4
    first = examples.iloc[0]
    assert (first["base model"], first["trial"]) == ("plain from None", "plain from 2")
    assert (first["base score"], first["trial score"]) == (0.1, 0.9)


def test_curves_of_the_asked_trials_only(fill):
    fill.whole()
    points = search.curve_rows(data.study("itn").snapshot, [3])
    assert set(points["trial"]) == {3}
    assert points["value"].isna().sum() == 1, "a loss that is NaN is kept as such"
    assert search.curve_rows(data.study("itn").snapshot, []).empty


def test_a_study_without_trials_has_empty_frames(fill):
    fill.study()
    study = data.study("itn")
    assert study.snapshot.table.empty and study.snapshot.leaders.empty and study.scores.empty
    assert (study.snapshot.varied, study.constant, study.scored("test")) == ([], "", [])


def test_a_configuration_of_another_version_is_still_shown(fill):
    fill.study(config={"of": "the future"})
    fill.trial(0, value=1.0)
    assert data.study("itn").standing.n_trials == 1


def test_an_unknown_study_names_the_nearest(fill):
    fill.study("quickstart")
    with pytest.raises(StudyStateError, match="quickstart"):
        data.study("quickstrat")


def test_adapters_with_lineage_and_scores(fill):
    fill.whole()
    (adapter,) = adapter_data.adapters()
    assert (adapter.name, adapter.version, adapter.stage, adapter.mebibytes) == ("itn", 1, "candidate", 3.0)
    origin = dict(zip(adapter.origin["what"], adapter.origin["value"], strict=True))
    assert origin["study"] == "itn" and origin["data: train"] == "a" * 64
    tried = dict(zip(adapter.hyperparameters["what"], adapter.hyperparameters["value"], strict=True))
    assert tried["learning_rate"] == "0.001"
    assert adapter.score_table.loc[0, "score"] == 0.9 and adapter.deciding["metric"] == "exact_match"


def test_no_control_characters_leave(fill):
    fill.whole(text=HOSTILE)
    study = data.study("itn")
    frames = [
        study.snapshot.table,
        study.events,
        data.examples("itn", 2, "test", "exact_match"),
        adapter_data.adapters()[0].origin,
        adapter_data.adapters()[0].hyperparameters,
    ]
    text = "".join(frame.to_string() for frame in frames) + study.file_text + study.searched + study.constant
    assert "<script>" in text, "texts are shown, not dropped"
    assert "\x1b" not in text and "\u202e" not in text


def test_nothing_of_the_dashboard_imports_torch():
    modules = [
        "sweeper_dashboard." + ".".join(path.relative_to(APP.parent).with_suffix("").parts)
        for folder in ("data", "charts")
        for path in (APP.parent / folder).glob("*.py")
    ]
    code = f"import sys; [__import__(name) for name in {modules!r}]; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_a_killed_process_leaves_an_interrupted_study(fill):
    fill.study()
    assert data.studies()[0].state == "interrupted"
    with fill.held():
        assert data.studies()[0].state == "running"


def test_the_time_left_follows_the_pace_and_the_time_limit(fill):
    fill.study()
    started = fill.database.studies.get("itn").started_at
    fill.trial(0, value=1.0)
    fill.trial(1, value=1.0)
    with fill.held():
        standing = data.study("itn").standing
    elapsed = (datetime.now(UTC) - started).total_seconds()
    assert standing.eta_s == pytest.approx(elapsed / 2 * 4, rel=0.5)
    assert data._eta_s(fill.database.studies.get("itn"), [], 6, None) is None


def test_the_proof_is_the_registered_trials(fill):
    fill.whole()
    proof = data.studies()[0].proof
    assert (proof.trial, proof.score, proof.base, proof.difference) == (2, 0.9, 0.1, 0.9)


def test_tags_of_several_studies_leave_the_others_of_each(fill):
    for name, tags in (("one", ["keep", "old"]), ("two", ["old"])):
        fill.study(name)
        data.tag([name], tags, "ada")
    data.tag(["one", "two"], ["new"], "ada", instead_of=["old"])
    assert {study.name: study.tags for study in data.studies()} == {"one": ("keep", "new"), "two": ("new",)}


def test_a_clone_that_began_from_weights_is_a_configuration_of_its_own(fill):
    fill.study()
    fill.trial(0, value=1.0)
    fill.trial(1, value=0.2, initial=0)
    leaders = data.study("itn").snapshot.leaders
    assert list(leaders["trial"]) == [1, 0] and list(leaders["seeds"]) == [1, 1]
    assert list(leaders["started from"]) == ["trial 0's weights", "base model"]


def test_a_study_is_run_as_long_as_one_of_its_workers_lives(fill):
    fill.study()
    assert not is_run(fill.database, "itn")
    with fill.held():
        assert is_run(fill.database, "itn")
    assert not is_run(fill.database, "itn")


def test_a_study_whose_stored_parts_are_empty_is_shown(fill):
    fill.study(config={"evaluation": None, "search": None})
    fill.whole("sound")
    assert {study.name for study in data.studies()} == {"itn", "sound"}


def test_ordered_trials_count_in_the_total_and_in_the_time_left(fill):
    fill.study()
    fill.trial(0, value=1.0)
    order = fill.database.orders.add("itn", OrderKind.ENQUEUE, actor="ada", message="", data={"parameters": {}})
    fill.database.orders.answer("itn", order, OrderState.DONE, "runs next, as trial 1")
    assert data.study("itn").standing.n_trials == 7


def test_tags_and_archiving_are_stored_with_who_did_it(fill):
    fill.whole()
    data.tag(["itn"], [" night ", "gpu", "gpu"], "ada")
    data.archive(["itn"], archived=True, actor="bob")
    standing = data.studies()[0]
    assert standing.tags == ("night", "gpu") and standing.archived
    done = [(action.actor, action.kind, action.study) for action in fill.database.actions.all()]
    assert done == [("bob", "archive", "itn"), ("ada", "tag", "itn")]
    with pytest.raises(UserError, match="printable"):
        data.tag(["itn"], ["x" * 60], "ada")


def test_examples_stand_beside_those_of_the_trials_own_base(fill):
    fill.study()
    fill.trial(0, value=1.0)
    for base in ("small", "large"):
        fill.evaluate(None, 0.1, text=base, base=base)
    fill.evaluate(0, 0.7, base="large")
    scores = data.study("itn").scores
    assert list(dict.fromkeys(scores["subject"])) == ["base model small", "base model large", "trial 0"]
    assert set(data.examples("itn", 0, "test", "exact_match")["base model"]) == {"large from None"}
