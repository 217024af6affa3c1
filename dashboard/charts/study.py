"""Figures from frames: pure functions, no Streamlit, no sweeper."""

from __future__ import annotations

import math
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

_GREY = "#9aa0a6"
_ACCENT = "#2563eb"
_COLUMNS = 3
_DECADE = 10
_HEIGHT = 260
_LONGEST = 24


def curves(points: pd.DataFrame, metric: str, best: int | None = None) -> go.Figure:
    """Draw one metric over the optimizer steps, a line a trial; values that are not finite leave a gap.

    Args:
        points: ``trial``, ``step``, ``metric``, ``value``.
        metric: Which metric of them.
        best: The trial whose line stands out.
    """
    figure = go.Figure()
    for trial, of in points[points["metric"] == metric].groupby("trial"):
        style: dict[str, Any] = {"width": 4} if trial == best else {"width": 1.5}
        figure.add_scatter(
            x=of["step"], y=_finite(of["value"]), name=f"trial {trial}", mode="lines+markers", line=style, marker_size=4
        )
    figure.update_xaxes(title="optimizer step")
    return _laid_out(figure, 2 * _HEIGHT, yaxis_title=_plain(metric), showlegend=True)


def history(trials: pd.DataFrame, metric: str, direction: str) -> go.Figure:
    """Draw the value of every complete trial in the order they were run, and the best until then.

    Args:
        trials: ``trial``, ``value``.
        metric: Name of the value.
        direction: ``minimize`` or ``maximize``.
    """
    done = trials[trials["value"].notna()]
    best = done["value"].cummin() if direction == "minimize" else done["value"].cummax()
    figure = go.Figure()
    figure.add_scatter(x=done["trial"], y=_finite(done["value"]), mode="markers", name="a trial", marker_color=_ACCENT)
    figure.add_scatter(
        x=done["trial"], y=_finite(best), mode="lines", line_shape="hv", name="best so far", line_color=_GREY
    )
    figure.update_xaxes(title="trial", tick0=0, dtick=max(1, len(trials) // 10))
    return _laid_out(figure, _HEIGHT, yaxis_title=_plain(metric), showlegend=True)


def parameters(trials: pd.DataFrame, names: list[str], metric: str) -> go.Figure:
    """Draw the value of complete trials over each hyperparameter, a panel each.

    Args:
        trials: ``trial``, ``value`` and a column a name.
        names: At least one hyperparameter.
        metric: Name of the value.
    """
    done = trials[trials["value"].notna()]
    rows = math.ceil(len(names) / _COLUMNS)
    gap = 0.35 / rows
    figure = make_subplots(rows, _COLUMNS, subplot_titles=[_plain(name) for name in names], vertical_spacing=gap)
    for place, name in enumerate(names):
        row, column = divmod(place, _COLUMNS)
        at = {"row": row + 1, "col": column + 1}
        numeric = pd.api.types.is_numeric_dtype(done[name]) and not pd.api.types.is_bool_dtype(done[name])
        x = done[name] if numeric else done[name].map(_short)
        labels = [f"trial {trial}" for trial in done["trial"]]
        figure.add_scatter(x=x, y=_finite(done["value"]), mode="markers", text=labels, marker_color=_ACCENT, **at)
        figure.update_xaxes(type=_axis(done[name]) if numeric else "category", **at)
        if column == 0:
            figure.update_yaxes(title=_plain(metric), **at)
    return _laid_out(figure, rows * _HEIGHT, showlegend=False)


def intervals(scores: pd.DataFrame, value: str, low: str, high: str, *, zero: bool = False) -> go.Figure:
    """Draw scores with their intervals, a panel a metric and a line a subject.

    Args:
        scores: ``subject``, ``metric`` and the three columns named; at least one row.
        value: Column of the score.
        low: Column of the interval's lower end.
        high: Column of its upper end.
        zero: Whether to draw the line of no difference.
    """
    metrics = list(dict.fromkeys(scores["metric"]))
    figure = make_subplots(1, len(metrics), subplot_titles=[_plain(name) for name in metrics], shared_yaxes=True)
    for column, name in enumerate(metrics, start=1):
        of = scores[scores["metric"] == name]
        error = {"type": "data", "array": of[high] - of[value], "arrayminus": of[value] - of[low]}
        figure.add_scatter(
            x=_finite(of[value]),
            y=of["subject"].map(_short),
            error_x=error,
            mode="markers",
            marker={"color": _ACCENT, "size": 9},
            row=1,
            col=column,
        )
        if zero:
            figure.add_vline(x=0, line_dash="dot", line_color=_GREY, row=1, col=column)
    figure.update_yaxes(autorange="reversed", type="category")
    return _laid_out(figure, 110 + 40 * scores["subject"].nunique(), showlegend=False)


def _axis(values: pd.Series[Any]) -> str:
    """Return the kind of axis: logarithmic where values spread over a decade or more."""
    positive = bool((values.dropna() > 0).all())
    return "log" if positive and values.max() >= _DECADE * values.min() else "linear"


def _finite(values: pd.Series[Any]) -> pd.Series[Any]:
    return values.astype(float).replace([np.inf, -np.inf], np.nan)


def _plain(text: object) -> str:
    """Return text as plotly shows it letter by letter: it reads a little HTML everywhere."""
    return escape(str(text), quote=False)


def _short(text: object) -> str:
    """Return a category that leaves room for the chart."""
    whole = str(text)
    return _plain(whole if len(whole) <= _LONGEST else whole[:_LONGEST] + "…")


def _laid_out(figure: go.Figure, height: int, **layout: Any) -> go.Figure:
    return figure.update_layout(height=height, margin={"l": 10, "r": 10, "t": 40, "b": 10}, **layout)
