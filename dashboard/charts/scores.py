"""Final scores with their intervals."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from sweeper_dashboard.charts.style import ACCENT, GREY, finite, laid_out, plain, short, whiskers


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
