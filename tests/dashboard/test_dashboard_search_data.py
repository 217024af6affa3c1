"""What charts take from a study: some of its trials, curves over any axis, lanes, rungs."""

from __future__ import annotations

import math

import pytest
from optuna.trial import TrialState

from sweeper.config.trial import Outcome
from sweeper_dashboard.charts import search as charts
from sweeper_dashboard.data import search as data
from sweeper_dashboard.data import studies
from sweeper_dashboard.data.snapshots import snapshot


@pytest.fixture
def wide(fill):
    """A study of 40 complete trials, the best of them trial 20."""
    fill.study()
    for number in range(40):
        fill.trial(number, value=1 + abs(number - 20) / 10, learning_rate=10 ** (-5 + number / 13))
    return studies.study("itn").snapshot


def test_a_sample_holds_what_is_asked_for_and_is_spread_evenly():
    numbers = list(range(100))
    chosen = data.sampled(numbers, 10, first=[50, 51, 999])
    assert len(chosen) == 10 and {50, 51} <= set(chosen) and chosen == sorted(chosen)
    assert 0 in chosen and 99 in chosen
    assert data.sampled(numbers, 200) == numbers
    assert len(data.sampled(numbers, 3, first=range(50))) == 3


def test_the_best_and_the_selected_are_always_drawn(wide):
    some = data.some(wide, 8, selected=[0])
    assert len(some) == 8 and {0, 20} <= set(some["trial"])


def test_the_best_so_far_keeps_its_changes_where_it_is_thinned(wide):
    whole, thinned = data.best_so_far(wide), data.best_so_far(wide, most=5)
    assert whole.iloc[-1] == thinned.iloc[-1] == 1.0 and len(whole) == 40
    assert list(thinned.index[:3]) == [0, 1, 2] and thinned.index[-1] == 39


def test_a_picture_gives_optuna_the_trials_with_their_numbers(wide):
    picture = data.picture(wide, ["learning_rate"], selected=[7], most=12)
    trials = picture.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    assert len(trials) == 12 and {7, 20} <= {trial.number for trial in trials}
    by_number = {trial.number: trial for trial in trials}
    assert by_number[20].value == 1.0
    assert by_number[20].params["learning_rate"] == wide.trials[20].parameters["learning_rate"]
    assert by_number[20].distributions["learning_rate"].log


def test_optunas_charts_draw_a_picture(wide):
    picture = data.picture(wide, ["learning_rate"])
    slices = charts.slices(picture, ["learning_rate"], selected=[20])
    assert list(slices.data[0].customdata) == list(range(40)) and list(slices.data[0].selectedpoints) == [20]
    assert charts.importances(picture).data
    assert charts.parallel_coordinates(picture, ["learning_rate"]).data


def test_hostile_values_are_escaped_and_shortened(fill):
    fill.study()
    for number in range(4):
        fill.trial(number, value=1.0 + number, scheduler=f"<b>{number}</b>" + "x" * 100)
    of = studies.study("itn").snapshot
    assert data.drawable(of) == []  # TRL's own fields are no parameters of the search
    assert data._text("<b>" + "x" * 100) == "&lt;b&gt;" + "x" * 37 + "…"


def test_curves_have_every_axis(fill):
    fill.study()
    fill.trial(0, value=1.0)
    of = studies.study("itn").snapshot
    points, reported = data.curves(of, "eval_loss", [])
    assert reported == 1
    last = points.iloc[-1]
    assert (last["step"], last["epoch"], last["time"]) == (6, 1.0, pytest.approx(30.0))
    assert math.isnan(last["tokens"]), "the trial counted none"


def test_only_so_many_curves_and_points_are_drawn(wide):
    points, reported = data.curves(wide, "loss", [3], most_points=60)
    assert reported == 40 and len(points) <= 60 + 20
    assert {3, 20} <= set(points["trial"])
    lasts = points.groupby("trial")["step"].max()
    assert set(lasts) == {6}, "the end of a curve is always drawn"


def test_bars_take_the_first_free_lane(fill):
    fill.study()
    for number in range(3):
        fill.trial(number, value=1.0)  # each is begun while the one before has 30 seconds to go
    bars = data.bars(studies.study("itn").snapshot)
    assert list(bars["lane"]) == ["cpu, slot 0", "cpu, slot 1", "cpu, slot 2"]


def test_rungs_follow_the_studys_pruner_and_tell_who_went_on(fill):
    fill.study()
    fill.trial(0, value=1.0)
    fill.trial(1, Outcome.PRUNED)
    of = studies.study("itn").snapshot
    assert data.rungs(of) == (33, 67)
    reached = data.reached(of, data.rungs(of)).set_index(["trial", "rung"])
    assert bool(reached.loc[(0, 33), "continued"]) and bool(reached.loc[(0, 67), "continued"])
    assert not reached.loc[(1, 33), "continued"] and (1, 67) not in reached.index


@pytest.mark.parametrize(
    ("pruner", "expected"), [("none", ()), ("median", ()), ("asha", (11, 33)), ({"kind": "hyperband"}, (11, 33))]
)
def test_rungs_of_every_pruner(fill, pruner, expected):
    fill.study(config={"search": {"pruner": pruner}, "evaluation": {"metric": "eval_loss"}})
    assert data.rungs(studies.study("itn").snapshot) == expected


def test_a_snapshot_reads_only_what_changed(fill, monkeypatch):
    fill.study()
    for number in range(5):
        fill.trial(number, value=1.0 + number, learning_rate=1e-3 / (1 + number))
    database = fill.database
    first = snapshot(database, database.studies.get("itn"))
    assert snapshot(database, database.studies.get("itn")) is first
    read = []
    everything = type(database.trials).all

    def counted(self, study, *, since=0):
        found = everything(self, study, since=since)
        read.append([trial.number for trial in found])
        return found

    monkeypatch.setattr(type(database.trials), "all", counted)
    fill.trial(5, value=0.5, learning_rate=1e-6)
    second = snapshot(database, database.studies.get("itn"))
    assert read == [[5]]
    assert list(second.trials) == [0, 1, 2, 3, 4, 5] and second.leaders["trial"].iloc[0] == 5
    assert list(first.trials) == [0, 1, 2, 3, 4]


def test_a_running_trials_steps_and_end_are_seen(fill):
    fill.study()
    fill.trial(0, None)
    before = studies.study("itn").snapshot.table
    assert (before["outcome"][0], before["steps"][0]) == ("running", 3)
    fill.database.metrics.add("itn", [(0, 5, {"loss": 1.0})])
    assert studies.study("itn").snapshot.table["steps"][0] == 5


def test_a_study_of_the_same_name_in_a_new_database_is_another_one(fill):
    fill.whole()
    database = fill.database
    first = snapshot(database, database.studies.get("itn"))
    record = database.studies.get("itn")
    again = type(record)(**{**record.__dict__, "created_at": record.created_at.replace(year=2000), "changes": 1})
    assert snapshot(database, again) is not first
