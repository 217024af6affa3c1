"""Figures of scores, and of several subjects side by side."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sweeper_dashboard.charts.style import ACCENT, GREY, HEIGHT, PICKED, finite, laid_out, plain, short, whiskers

COLORS = (ACCENT, *PICKED)
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "6px,2px", "2px,6px")
SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "star", "hexagon")
"""Subjects are told apart by more than colour."""

FEWEST_SPOKES = 3


def spans(
    scores: pd.DataFrame, value: str, low: str, high: str, title: str, order: Sequence[str], *, zero: bool = False
) -> go.Figure:
    """Draw a value with its interval for each subject, the first on top.

    Args:
        scores: ``subject``, and the columns named by ``value``, ``low`` and ``high``.
        value: Column of the value.
        low: Column of the interval's lower end.
        high: Column of its upper end.
        title: Title of the figure.
        order: All subjects; the position determines the colour.
        zero: Whether to draw the line of no difference.
    """
    figure = go.Figure()
    for subject, of in scores.groupby("subject", sort=False):
        place = order.index(subject)
        figure.add_scatter(
            x=finite(of[value]),
            y=[short(subject)],
            error_x=whiskers(of[value], of[low], of[high]),
            mode="markers",
            marker={"color": COLORS[place % len(COLORS)], "symbol": SYMBOLS[place % len(SYMBOLS)], "size": 11},
            hovertemplate="%{y}: %{x:.4f}<extra></extra>",
        )
    if zero:
        figure.add_vline(x=0, line_dash="dot", line_color=GREY)
    figure.update_yaxes(autorange="reversed", type="category")
    return laid_out(figure, 110 + 40 * max(1, len(scores)), title=plain(title), showlegend=False)


def profile(scores: pd.DataFrame, metrics: Sequence[str], order: Sequence[str]) -> go.Figure:
    """Draw metrics from 0 to 1 of each subject: a radar, or bars if there are too few metrics.

    Args:
        scores: ``subject``, ``metric``, ``score``.
        metrics: Metrics to draw; at least one.
        order: All subjects; the position determines the colour.
    """
    figure = go.Figure()
    radar = len(metrics) >= FEWEST_SPOKES
    for subject, of in scores.groupby("subject", sort=False):
        place = order.index(subject)
        by_metric = of.set_index("metric")["score"]
        values = [float(by_metric.get(name, float("nan"))) for name in metrics]
        names = [plain(name) for name in metrics]
        color, name = COLORS[place % len(COLORS)], short(subject)
        if radar:
            line = {"color": color, "dash": DASHES[place % len(DASHES)]}
            closed = {"r": [*values, values[0]], "theta": [*names, names[0]]}
            figure.add_scatterpolar(**closed, name=name, line=line, mode="lines+markers")
        else:
            figure.add_bar(x=names, y=values, name=name, marker={"color": color})
    figure.update_polars(radialaxis={"range": [0, 1]}, bgcolor="rgba(0,0,0,0)")
    figure.update_yaxes(range=[0, 1])
    return laid_out(figure, int(1.6 * HEIGHT), showlegend=True)


def curves(points: pd.DataFrame, metric: str, order: Sequence[str]) -> go.Figure:
    """Draw one metric over the training of each subject.

    Args:
        points: ``subject``, ``percent``, ``value``.
        metric: Name of the metric.
        order: All subjects; the position determines the colour.
    """
    figure = go.Figure()
    for subject, of in points.groupby("subject", sort=False):
        place = order.index(subject)
        figure.add_scatter(
            x=of["percent"],
            y=finite(of["value"]),
            name=short(subject),
            mode="lines+markers",
            line={"color": COLORS[place % len(COLORS)], "dash": DASHES[place % len(DASHES)], "width": 2.5},
            marker={"symbol": SYMBOLS[place % len(SYMBOLS)], "size": 7},
        )
    figure.update_xaxes(title="% of training")
    return laid_out(figure, int(1.6 * HEIGHT), yaxis_title=plain(metric), showlegend=True)


def intervals(scores: pd.DataFrame, value: str, low: str, high: str, *, zero: bool = False) -> go.Figure:
    """Draw scores with their intervals, a panel per metric and a line per subject.

    Args:
        scores: ``subject``, ``metric`` and the three columns named; at least one row.
        value: Column of the score.
        low: Column of the interval's lower end.
        high: Column of its upper end.
        zero: Whether to draw the line of no difference.
    """
    metrics = list(dict.fromkeys(scores["metric"]))
    figure = make_subplots(1, len(metrics), subplot_titles=[plain(name) for name in metrics], shared_yaxes=True)
    for column, name in enumerate(metrics, start=1):
        of = scores[scores["metric"] == name]
        figure.add_scatter(
            x=finite(of[value]),
            y=of["subject"].map(short),
            error_x=whiskers(of[value], of[low], of[high]),
            mode="markers",
            marker={"color": ACCENT, "size": 9},
            row=1,
            col=column,
        )
        if zero:
            figure.add_vline(x=0, line_dash="dot", line_color=GREY, row=1, col=column)
    figure.update_yaxes(autorange="reversed", type="category")
    return laid_out(figure, 110 + 40 * scores["subject"].nunique(), showlegend=False)
