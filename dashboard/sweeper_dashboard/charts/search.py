"""Figures of a search: best values, hyperparameters, slots and rungs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import optuna.visualization as drawn_by_optuna
import pandas as pd
import plotly.graph_objects as go
from optuna import Study

from sweeper_dashboard.charts.style import (
    ACCENT,
    GOOD,
    GREY,
    HEIGHT,
    OUTCOMES,
    finite,
    labels,
    laid_out,
    picked_out,
    plain,
)


def history(
    trials: pd.DataFrame,
    metric: str,
    direction: str,
    *,
    names: Sequence[str] = (),
    selected: Collection[int] = (),
    best: pd.Series[Any] | None = None,
) -> go.Figure:
    """Draw the values of completed trials in the order they ran, and the best so far.

    Args:
        trials: ``trial``, ``outcome``, ``value``.
        metric: Name of the value.
        direction: ``minimize`` or ``maximize``.
        names: Hyperparameters in the hover text.
        selected: Selected trials.
        best: The best value so far by trial number; computed from ``trials`` if left out.
    """
    done = trials[trials["value"].notna()]
    if best is None:
        values = done["value"].cummin() if direction == "minimize" else done["value"].cummax()
        best = values.set_axis(done["trial"])
    figure = go.Figure()
    figure.add_scatter(
        x=done["trial"],
        y=finite(done["value"]),
        mode="markers",
        name="trial",
        marker_color=ACCENT,
        customdata=done["trial"].tolist(),
        text=labels(done, names),
        hovertemplate="%{text}<br><b>%{y:.5g}</b><extra></extra>",
    )
    figure.add_scatter(
        x=best.index,
        y=finite(best),
        mode="lines",
        line_shape="hv",
        name="best so far",
        line_color=GOOD,
        hoverinfo="skip",
    )
    figure.update_xaxes(title="trial")
    return picked_out(laid_out(figure, 300, yaxis_title=plain(metric), showlegend=True), selected)


def importances(study: Study) -> go.Figure:
    """Draw the importance of each hyperparameter for the best values (PED-ANOVA)."""
    return laid_out(drawn_by_optuna.plot_param_importances(study), HEIGHT, title=None, showlegend=False)


def parallel_coordinates(study: Study, names: Sequence[str]) -> go.Figure:
    """Draw every trial as a line over its hyperparameters and its value."""
    figure = drawn_by_optuna.plot_parallel_coordinate(study, params=list(names))
    return laid_out(figure, 420, title=None, margin={"l": 60, "r": 60, "t": 60, "b": 40})


def slices(study: Study, names: Sequence[str], selected: Collection[int] = ()) -> go.Figure:
    """Draw the value over each hyperparameter, a panel each."""
    figure = drawn_by_optuna.plot_slice(study, params=list(names))
    return picked_out(laid_out(_named(figure, study, names), 320, title=None, showlegend=False), selected)


def _named(figure: go.Figure, study: Study, names: Sequence[str]) -> go.Figure:
    """Name the trials of a slice plot's points: a panel has the trials with its parameter, in order."""
    trials = study.get_trials(deepcopy=False)
    for trace, name in zip(figure.data, sorted(names), strict=False):
        numbers = [trial.number for trial in trials if name in trial.params]
        if len(numbers) == len(trace.x):
            trace.update(
                customdata=numbers, hovertemplate="trial %{customdata}<br>%{x}<br><b>%{y:.5g}</b><extra></extra>"
            )
    return figure


def contour(study: Study, first: str, second: str) -> go.Figure:
    """Draw the value over two hyperparameters."""
    figure = drawn_by_optuna.plot_contour(study, params=[first, second])
    return laid_out(figure, 420, title=None)


def ranks(study: Study, names: Sequence[str]) -> go.Figure:
    """Draw the trials over pairs of hyperparameters, coloured by rank."""
    return laid_out(drawn_by_optuna.plot_rank(study, params=list(names)), 460, title=None)


def front(study: Study) -> go.Figure:
    """Draw the Pareto front of a search with two or three objectives."""
    return laid_out(drawn_by_optuna.plot_pareto_front(study), 420, title=None)


def timeline(bars: pd.DataFrame, names: Sequence[str], selected: Collection[int] = ()) -> go.Figure:
    """Draw when each trial trained, a lane per slot.

    Args:
        bars: ``trial``, ``outcome``, ``lane``, ``begun``, ``ended`` and the hyperparameters ``names``.
        names: Hyperparameters in the hover text.
        selected: Selected trials.
    """
    figure = go.Figure()
    for outcome, of in bars.groupby("outcome", sort=False):
        length = (of["ended"] - of["begun"]).dt.total_seconds() * 1000
        figure.add_bar(
            base=of["begun"],
            x=length,
            y=of["lane"],
            orientation="h",
            name=str(outcome),
            marker={
                "color": OUTCOMES.get(str(outcome), GREY),
                "line": {"width": 0.5, "color": "rgba(128,128,128,0.6)"},
            },
            customdata=of["trial"].tolist(),
            text=labels(of, names),
            textposition="none",
            hovertemplate="%{text}<br>%{base|%H:%M:%S}<extra></extra>",
        )
    figure.update_xaxes(type="date", title="UTC")
    lanes = list(dict.fromkeys(bars["lane"]))
    order = {"categoryorder": "array", "categoryarray": lanes}
    figure.update_yaxes(autorange="reversed", type="category", **order)
    return picked_out(laid_out(figure, 130 + 34 * len(lanes), barmode="overlay", bargap=0.25), selected)


def rungs(reached: pd.DataFrame, metric: str, selected: Collection[int] = ()) -> go.Figure:
    """Draw the values of trials at each rung of the pruner.

    Args:
        reached: ``trial``, ``rung`` (per cent of a trial's training), ``value``, ``continued``.
        metric: Name of the value.
        selected: Selected trials.
    """
    figure = go.Figure()
    for continued, color, name in ((True, ACCENT, "continued"), (False, GREY, "stopped here")):
        of = reached[reached["continued"] == continued]
        figure.add_scatter(
            x=[f"{rung} %" for rung in of["rung"]],
            y=finite(of["value"]),
            mode="markers",
            name=name,
            marker={"color": color, "size": 8, "symbol": "circle" if continued else "x"},
            customdata=of["trial"].tolist(),
            hovertemplate="trial %{customdata}<br><b>%{y:.5g}</b><extra></extra>",
        )
    order = [f"{rung} %" for rung in sorted(reached["rung"].unique())]
    figure.update_xaxes(title="% of a trial's training", type="category", categoryorder="array", categoryarray=order)
    return picked_out(laid_out(figure, 320, yaxis_title=plain(metric)), selected)
