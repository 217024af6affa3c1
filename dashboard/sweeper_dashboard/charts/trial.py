"""Figures of one trial: its curves, and the pruner's decisions among other trials."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from sweeper_dashboard.charts.curves import AXES
from sweeper_dashboard.charts.style import ACCENT, BAD, GOOD, GREY, HEIGHT, finite, laid_out, plain

_BAND = "rgba(154, 160, 166, 0.25)"
_FAINT = 0.35
MOST_POINTS = 2_000


def judged(
    points: pd.DataFrame,
    band: pd.DataFrame,
    metric: str,
    rungs: Sequence[int] = (),
    decisions: pd.DataFrame | None = None,
    ended: str = "",
) -> go.Figure:
    """Draw the deciding metric of a trial on the band of the others, with the pruner's rungs and decisions.

    Args:
        points: ``percent`` and ``value`` of the trial.
        band: ``percent``, ``low``, ``median``, ``high`` of the others.
        metric: Name of the metric.
        rungs: The pruner's rungs, in per cent.
        decisions: ``at %``, ``value``, ``needed``, ``decision`` of the pruner.
        ended: Where the line ends, in a word, such as ``pruned``.
    """
    figure = go.Figure()
    if not band.empty:
        style: dict[str, Any] = {"mode": "lines", "line_width": 0, "hoverinfo": "skip"}
        figure.add_scatter(x=band["percent"], y=finite(band["high"]), showlegend=False, **style)
        figure.add_scatter(
            x=band["percent"],
            y=finite(band["low"]),
            fill="tonexty",
            fillcolor=_BAND,
            name="other trials, middle half",
            **style,
        )
        line = {"color": GREY, "width": 1.5, "dash": "dot"}
        figure.add_scatter(
            x=band["percent"], y=finite(band["median"]), mode="lines", line=line, name="other trials, median"
        )
    for rung in rungs:
        figure.add_vline(x=rung, line_dash="dash", line_width=1, line_color=GREY, annotation_text=f"rung {rung} %")
    figure.add_scatter(
        x=points["percent"],
        y=finite(points["value"]),
        mode="lines+markers",
        name="this trial",
        line={"color": ACCENT, "width": 3},
        marker_size=7,
    )
    if decisions is not None and not decisions.empty:
        _decisions(figure, decisions)
    if ended and not points.empty:
        last = points.iloc[-1]
        figure.add_annotation(x=last["percent"], y=last["value"], text=plain(ended), showarrow=True, arrowcolor=GREY)
    figure.update_xaxes(title="% of training", range=[0, 102])
    return laid_out(figure, int(1.5 * HEIGHT), yaxis_title=plain(metric), showlegend=True)


def _decisions(figure: go.Figure, decisions: pd.DataFrame) -> None:
    needed = decisions[decisions["needed"].notna()]
    figure.add_scatter(
        x=needed["at %"],
        y=finite(needed["needed"]),
        mode="markers",
        name="needed to go on",
        marker={"symbol": "line-ew-open", "size": 22, "color": BAD, "line": {"width": 3}},
    )
    for decision, color, symbol in (("kept", GOOD, "circle"), ("pruned", BAD, "x")):
        of = decisions[decisions["decision"] == decision]
        if not of.empty:
            marker = {"symbol": symbol, "size": 12, "color": color}
            figure.add_scatter(x=of["at %"], y=finite(of["value"]), mode="markers", name=decision, marker=marker)


def panels(points: pd.DataFrame, metrics: Collection[str], over: str, smoothing: float) -> dict[str, go.Figure]:
    """Draw each metric over the training, with a smoothed line over the raw one.

    Args:
        points: ``metric``, ``value`` and a column named ``over``.
        metrics: Metrics to draw.
        over: One of ``AXES``.
        smoothing: Weight of the past in an exponential moving average, 0 (none) to 0.99.
    """
    figures = {}
    for metric in metrics:
        of = thinned(points[points["metric"] == metric])
        values = finite(of["value"])
        figure = go.Figure()
        few = len(of) <= 50
        raw: dict[str, Any] = {"mode": "lines+markers" if few else "lines", "line": {"color": ACCENT, "width": 1.5}}
        smooth = smoothing > 0 and not few
        figure.add_scatter(x=of[over], y=values, opacity=_FAINT if smooth else 1.0, name="reported", **raw)
        if smooth:
            line = {"color": ACCENT, "width": 2.5}
            averaged = values.ewm(alpha=1 - smoothing).mean()
            figure.add_scatter(x=of[over], y=averaged, mode="lines", line=line, name="smoothed")
        figure.update_xaxes(title=AXES[over])
        figures[metric] = laid_out(figure, HEIGHT, title=plain(metric), showlegend=False)
    return figures


def thinned(points: pd.DataFrame) -> pd.DataFrame:
    """Return at most ``MOST_POINTS`` points, evenly spread, the last included."""
    if len(points) <= MOST_POINTS:
        return points
    stride = -(-len(points) // MOST_POINTS)
    return points.iloc[::-1].iloc[::stride].iloc[::-1]
