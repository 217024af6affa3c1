"""Learning curves of many trials in one figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sweeper_dashboard.charts.style import ACCENT, GOOD, GREY, HEIGHT, PICKED, finite, labels, laid_out, plain

AXES = {
    "step": "optimizer step",
    "epoch": "epoch",
    "tokens": "training tokens",
    "time": "training time in seconds",
}
"""X axes of curves by column."""

_ENDED_EARLY = ("pruned", "diverged", "failed", "infeasible", "interrupted")
_GROUPS = {"ended early": (GREY, 1.0, 0.55), "complete": (ACCENT, 1.3, 0.5), "running": (GOOD, 2.2, 1.0)}


def curves(
    points: pd.DataFrame,
    trials: pd.DataFrame,
    metric: str,
    *,
    over: str = "step",
    smoothing: float = 0.0,
    log_x: bool = False,
    log_y: bool = False,
    leader: int | None = None,
    selected: Sequence[int] = (),
    names: Sequence[str] = (),
) -> go.Figure:
    """Draw one metric of many trials; those that ended early are grey, the leader and selected ones stand out.

    Args:
        points: ``trial``, ``value`` and a column named ``over``, of one metric, in the order of the steps.
        trials: ``trial``, ``outcome`` and the hyperparameters ``names``.
        metric: Name of the metric.
        over: One of ``AXES``.
        smoothing: Weight of the past in an exponential moving average, 0 (none) to 0.99.
        log_x: Whether the x axis is logarithmic.
        log_y: Whether the y axis is logarithmic.
        leader: The best trial.
        selected: Selected trials.
        names: Hyperparameters in the hover text.
    """
    points = points.assign(drawn=_smoothed(points, smoothing))
    known = trials[trials["trial"].isin(points["trial"].unique())]
    told = dict(zip(known["trial"], labels(known, names), strict=True))
    outcomes = dict(zip(known["trial"], known["outcome"], strict=True))
    alone = [number for number in dict.fromkeys([*selected, *([] if leader is None else [leader])]) if number in told]
    figure = go.Figure()
    for group, (color, width, opacity) in _GROUPS.items():
        members = {n for n, outcome in outcomes.items() if _group(outcome) == group and n not in alone}
        of = points[points["trial"].isin(members)]
        if not of.empty:
            _add(figure, _with_gaps(of), over, told, group, color, width, opacity if not selected else opacity / 3)
    for place, number in enumerate(alone):
        color = ACCENT if number == leader and number not in selected else PICKED[place % len(PICKED)]
        name = f"trial {number}" + (" (best)" if number == leader else "")
        _add(figure, points[points["trial"] == number], over, told, name, color, 3.5, 1.0)
    figure.update_xaxes(title=AXES[over], type="log" if log_x else "linear")
    figure.update_yaxes(title=plain(metric), type="log" if log_y else "linear")
    return laid_out(figure, 2 * HEIGHT, showlegend=True, hovermode="closest")


def _group(outcome: str) -> str:
    return "ended early" if outcome in _ENDED_EARLY else "running" if outcome == "running" else "complete"


def _smoothed(points: pd.DataFrame, weight: float) -> pd.Series[Any]:
    values = finite(points["value"])
    if weight <= 0:
        return values
    return values.groupby(points["trial"]).transform(lambda of: of.ewm(alpha=1 - weight).mean())


def _with_gaps(points: pd.DataFrame) -> pd.DataFrame:
    """Return points with a gap after each trial, so that one trace can hold many lines."""
    gaps = points.drop_duplicates("trial", keep="last").assign(drawn=np.nan)
    both = pd.concat([points, gaps], ignore_index=True)
    return both.sort_values("trial", kind="stable")


def _add(
    figure: go.Figure,
    points: pd.DataFrame,
    over: str,
    told: dict[int, str],
    name: str,
    color: str,
    width: float,
    opacity: float,
) -> None:
    figure.add_scatter(
        x=points[over],
        y=points["drawn"],
        name=name,
        mode="lines+markers",
        opacity=opacity,
        line={"color": color, "width": width},
        marker={"color": color, "size": max(3.0, 1.5 * width)},
        customdata=points["trial"].tolist(),
        text=[told[number] for number in points["trial"]],
        hovertemplate="%{text}<br><b>%{y:.5g}</b> at %{x:,.5g}<extra></extra>",
        connectgaps=False,
    )
