"""Style of all figures: colours, text without HTML, layout, and selected trials."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

GREY = "#9aa0a6"
ACCENT = "#2f6fed"
GOOD = "#17a398"
BAD = "#e4572e"
OUTCOMES = {
    "complete": ACCENT,
    "running": GOOD,
    "pruned": GREY,
    "paused": "#d99a00",
    "interrupted": "#d99a00",
    "diverged": BAD,
    "failed": "#d6337c",
    "infeasible": "#a855f7",
}
"""A colour per outcome, for light and dark themes; never the only sign of it."""
PICKED = ("#e4572e", "#17a398", "#a855f7", "#d99a00", "#d6337c", "#5b8c2a", "#0891b2", "#7c5cff")
HEIGHT = 260
LONGEST = 24
_FADED = 0.12


def finite(values: pd.Series[Any]) -> pd.Series[Any]:
    """Return numbers with a gap for each that is not finite."""
    return values.astype(float).replace([np.inf, -np.inf], np.nan)


def plain(text: object) -> str:
    """Return text escaped for plotly, which reads some HTML everywhere."""
    return escape(str(text), quote=False)


def short(text: object) -> str:
    """Return escaped text, cut to leave room for the chart."""
    whole = str(text)
    return plain(whole if len(whole) <= LONGEST else whole[:LONGEST] + "…")


def whiskers(values: pd.Series[Any], low: pd.Series[Any], high: pd.Series[Any]) -> dict[str, Any]:
    """Return error bars from ``low`` to ``high``."""
    return {"type": "data", "array": high - values, "arrayminus": values - low, "width": 6}


def laid_out(figure: go.Figure, height: int, **layout: Any) -> go.Figure:
    """Return the figure with the common margins and legend."""
    legend = {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0, "title": None}
    margin = {"l": 10, "r": 10, "t": 40, "b": 10}
    return figure.update_layout(**{"height": height, "margin": margin, "legend": legend, **layout})


def labels(trials: pd.DataFrame, names: Iterable[str]) -> list[str]:
    """Return the hover texts of trials: number, outcome and hyperparameters."""
    shown = [name for name in names if name in trials]
    columns = [trials[name].map(_brief) for name in shown]
    return [
        f"trial {trial}, {outcome}"
        + "".join(f"<br>{plain(name)} {value}" for name, value in zip(shown, row, strict=True))
        for trial, outcome, *row in zip(trials["trial"], trials["outcome"], *columns, strict=True)
    ]


def _brief(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else short(value)


def picked_out(figure: go.Figure, selected: Collection[int]) -> go.Figure:
    """Return the figure with all points faded but the selected trials', which traces name in ``customdata``."""
    if not selected:
        return figure
    for trace in figure.data:
        numbers = getattr(trace, "customdata", None)
        if numbers is not None and "selectedpoints" in trace:
            places = [place for place, number in enumerate(numbers) if number in selected]
            trace.update(selectedpoints=places, unselected={"marker": {"opacity": _FADED}})
    return figure
