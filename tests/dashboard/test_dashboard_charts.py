from __future__ import annotations

import math

import pandas as pd
import pytest
from sweeper_dashboard.charts import study as charts


def test_a_line_a_trial_and_gaps_where_a_value_is_not_finite():
    points = pd.DataFrame(
        {
            "trial": [0, 0, 0, 3, 0],
            "step": [1, 2, 3, 1, 1],
            "metric": ["loss", "loss", "loss", "loss", "eval_loss"],
            "value": [3.0, math.inf, 1.0, 2.0, 9.0],
        }
    )
    figure = charts.curves(points, "loss", best=3)
    assert [trace.name for trace in figure.data] == ["trial 0", "trial 3"]
    assert figure.data[0].y[0] == 3.0 and math.isnan(figure.data[0].y[1]) and figure.data[0].y[2] == 1.0
    assert figure.data[1].line.width > figure.data[0].line.width


@pytest.mark.parametrize(("direction", "expected"), [("minimize", [2.0, 1.0, 1.0]), ("maximize", [2.0, 2.0, 3.0])])
def test_the_best_so_far_follows_the_direction(direction, expected):
    trials = pd.DataFrame({"trial": [0, 1, 2, 3], "value": [2.0, 1.0, None, 3.0]})
    figure = charts.history(trials, "score", direction)
    assert list(figure.data[0].x) == [0, 1, 3]
    assert list(figure.data[1].y) == expected


def test_a_panel_a_hyperparameter_with_the_axis_that_suits_it():
    trials = pd.DataFrame(
        {
            "trial": [0, 1, 2],
            "value": [1.0, 2.0, None],
            "learning_rate": [1e-5, 1e-3, 1e-2],
            "lora_rank": [8, 16, 32],
            "flag": [True, False, True],
            "optim": ["a" * 40, "<b>x</b>", "c"],
        }
    )
    figure = charts.parameters(trials, ["learning_rate", "lora_rank", "flag", "optim"], "eval_loss")
    assert [len(trace.x) for trace in figure.data] == [2, 2, 2, 2], "only complete trials"
    axes = [figure.layout[name].type for name in ("xaxis", "xaxis2", "xaxis3", "xaxis4")]
    assert axes == ["log", "linear", "category", "category"]
    assert list(figure.data[3].x) == ["a" * 24 + "…", "&lt;b&gt;x&lt;/b&gt;"]


def test_a_hyperparameter_from_zero_has_a_linear_axis():
    trials = pd.DataFrame({"trial": [0, 1], "value": [1.0, 2.0], "weight_decay": [0.0, 0.1]})
    assert charts.parameters(trials, ["weight_decay"], "eval_loss").layout.xaxis.type == "linear"


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
    figure = charts.intervals(scores, "s", "l", "h", zero=True)
    (trace,) = figure.data
    assert list(trace.error_x.array) == pytest.approx([0.2, 0.1])
    assert list(trace.error_x.arrayminus) == pytest.approx([0.1, 0.1])
    assert figure.layout.shapes[0].x0 == 0, "the line of no difference"


def test_names_are_shown_letter_by_letter():
    name = "<a href='javascript:alert(1)'>x</a>"
    scores = pd.DataFrame({"subject": [name], "metric": [name], "s": [0.5], "l": [0.4], "h": [0.6]})
    points = pd.DataFrame({"trial": [0], "step": [1], "metric": [name], "value": [1.0]})
    drawn = charts.intervals(scores, "s", "l", "h").to_json() + charts.curves(points, name).to_json()
    assert "<a" not in drawn
    assert "&lt;a" in drawn or "\\u0026lt;a" in drawn
