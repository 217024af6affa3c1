from __future__ import annotations

import math

import pandas as pd
import pytest

from sweeper_dashboard.charts import compare as score_charts
from sweeper_dashboard.charts import curves as curve_charts
from sweeper_dashboard.charts import search as charts

TRIALS = pd.DataFrame(
    {
        "trial": [0, 1, 2, 3, 4],
        "outcome": ["complete", "pruned", "complete", "running", "diverged"],
        "value": [2.0, None, 1.0, None, None],
        "rank": [4, 8, 4, 8, 16],
    }
)


def points(numbers=(0, 1, 2, 3, 4), values=(3.0, math.inf, 1.0)):
    rows = [(n, step, value + n) for n in numbers for step, value in enumerate(values, start=1)]
    frame = pd.DataFrame(rows, columns=["trial", "step", "value"])
    return frame.assign(epoch=frame["step"] / 10)


def named(figure):
    return {trace.name: trace for trace in figure.data}


def test_trials_that_ended_early_are_grey_and_the_leader_stands_out():
    figure = curve_charts.curves(points(), TRIALS, "loss", leader=2, names=["rank"])
    lines = named(figure)
    assert set(lines) == {"ended early", "complete", "running", "trial 2 (best)"}
    assert set(lines["ended early"].customdata) == {1, 4} and lines["ended early"].line.color == "#9aa0a6"
    assert lines["trial 2 (best)"].line.width > lines["complete"].line.width
    assert "rank 4" in lines["complete"].text[0] and "trial 0, complete" in lines["complete"].text[0]


def test_a_value_that_is_not_finite_leaves_a_gap_and_so_does_the_next_trial():
    figure = curve_charts.curves(points((1, 4)), TRIALS, "loss")
    (line,) = figure.data
    assert list(line.customdata) == [1, 1, 1, 1, 4, 4, 4, 4]
    assert [math.isnan(y) for y in line.y] == [False, True, False, True] * 2


def test_selected_trials_have_lines_of_their_own_and_the_others_fade():
    plain = named(curve_charts.curves(points(), TRIALS, "loss"))["ended early"].opacity
    lines = named(curve_charts.curves(points(), TRIALS, "loss", selected=[1, 3]))
    assert {"trial 1", "trial 3"} <= set(lines)
    assert lines["ended early"].opacity < plain and set(lines["ended early"].customdata) == {4}
    assert lines["trial 1"].line.color != lines["trial 3"].line.color


def test_smoothing_is_an_average_of_the_trials_own_past():
    rough = points((0, 2), (4.0, 0.0, 4.0))
    smooth = curve_charts.curves(rough, TRIALS, "loss", smoothing=0.5, over="epoch")
    y = list(smooth.data[0].y)
    assert y[0] == 4.0 and y[1] == pytest.approx((4 * 0.5 + 0 * 1) / 1.5)
    assert y[4] == 6.0, "the next trial begins anew"
    assert list(smooth.data[0].x)[:3] == [0.1, 0.2, 0.3]


def test_axes_can_be_logarithmic():
    figure = curve_charts.curves(points((0,)), TRIALS, "loss", log_x=True, log_y=True)
    assert (figure.layout.xaxis.type, figure.layout.yaxis.type) == ("log", "log")


@pytest.mark.parametrize(("direction", "expected"), [("minimize", [2.0, 1.0, 1.0]), ("maximize", [2.0, 2.0, 3.0])])
def test_the_best_so_far_follows_the_direction(direction, expected):
    trials = pd.DataFrame({"trial": [0, 1, 2, 3], "outcome": "complete", "value": [2.0, 1.0, None, 3.0]})
    figure = charts.history(trials, "score", direction)
    assert list(figure.data[0].x) == [0, 1, 3]
    assert list(figure.data[1].y) == expected


def test_selected_points_stay_and_the_others_fade():
    trials = pd.DataFrame({"trial": [3, 5, 9], "outcome": "complete", "value": [2.0, 1.0, 3.0]})
    figure = charts.history(trials, "score", "minimize", selected=[9, 3])
    assert list(figure.data[0].selectedpoints) == [0, 2]
    assert figure.data[0].unselected.marker.opacity < 0.5
    assert charts.history(trials, "score", "minimize").data[0].selectedpoints is None


def test_a_lane_a_slot_and_a_colour_an_outcome():
    begun = pd.to_datetime(["2026-01-01 10:00", "2026-01-01 10:00", "2026-01-01 11:00"])
    bars = pd.DataFrame(
        {
            "trial": [0, 1, 2],
            "outcome": ["complete", "pruned", "complete"],
            "lane": ["cpu, slot 0", "cpu, slot 1", "cpu, slot 0"],
            "begun": begun,
            "ended": begun + pd.Timedelta(minutes=30),
        }
    )
    drawn = named(charts.timeline(bars, [], selected=[2]))
    assert list(drawn["complete"].y) == ["cpu, slot 0", "cpu, slot 0"] and list(drawn["complete"].x) == [1.8e6, 1.8e6]
    assert list(drawn["complete"].selectedpoints) == [1] and list(drawn["pruned"].selectedpoints) == []


def test_rungs_tell_who_went_on():
    reached = pd.DataFrame(
        {"trial": [0, 1, 0], "rung": [33, 33, 67], "value": [1.0, 2.0, 0.5], "continued": [True, False, True]}
    )
    drawn = named(charts.rungs(reached, "loss"))
    assert list(drawn["continued"].x) == ["33 %", "67 %"] and list(drawn["stopped here"].customdata) == [1]
    assert drawn["continued"].marker.symbol != drawn["stopped here"].marker.symbol, "not by colour alone"


def test_intervals_reach_from_low_to_high_around_the_score():
    scores = pd.DataFrame(
        {
            "subject": ["base", "trial 1"],
            "metric": ["f1", "f1"],
            "s": [0.2, 0.8],
            "l": [0.1, 0.7],
            "h": [0.4, 0.9],
        }
    )
    figure = score_charts.intervals(scores, "s", "l", "h", zero=True)
    (trace,) = figure.data
    assert list(trace.error_x.array) == pytest.approx([0.2, 0.1])
    assert list(trace.error_x.arrayminus) == pytest.approx([0.1, 0.1])
    assert figure.layout.shapes[0].x0 == 0, "the line of no difference"


def test_names_are_shown_letter_by_letter():
    name = "<a href='javascript:alert(1)'>x</a>"
    scores = pd.DataFrame({"subject": [name], "metric": [name], "s": [0.5], "l": [0.4], "h": [0.6]})
    trials = TRIALS.assign(**{name: name})
    figures = (
        score_charts.intervals(scores, "s", "l", "h"),
        curve_charts.curves(points(), trials, name, names=[name]),
        charts.history(trials, name, "minimize", names=[name]),
    )
    for figure in figures:
        drawn = figure.to_json()
        assert "<a" not in drawn and "\\u003ca" not in drawn
        assert "&lt;a" in drawn or "\\u0026lt;a" in drawn
