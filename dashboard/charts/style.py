"""What all figures share: colours, text without HTML, layout, and trials that are picked out."""

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
"""A colour an outcome, to be told apart on light and on dark; never the only sign of it."""
PICKED = ("#e4572e", "#17a398", "#a855f7", "#d99a00", "#d6337c", "#5b8c2a", "#0891b2", "#7c5cff")
HEIGHT = 260
LONGEST = 24
_FADED = 0.12


def finite(values: pd.Series[Any]) -> pd.Series[Any]:
    """Return numbers with a gap where one is not finite."""
    return values.astype(float).replace([np.inf, -np.inf], np.nan)


def plain(text: object) -> str:
    """Return text as plotly shows it letter by letter: it reads a little HTML everywhere."""
    return escape(str(text), quote=False)


def short(text: object) -> str:
    """Return a category that leaves room for the chart."""
    whole = str(text)
    return plain(whole if len(whole) <= LONGEST else whole[:LONGEST] + "…")


def laid_out(figure: go.Figure, height: int, **layout: Any) -> go.Figure:
    """Return the figure with the margins and the legend that all have."""
    legend = {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0, "title": None}
    margin = {"l": 10, "r": 10, "t": 40, "b": 10}
    return figure.update_layout(**{"height": height, "margin": margin, "legend": legend, **layout})


def labels(trials: pd.DataFrame, names: Iterable[str]) -> list[str]:
    """Return what is shown when the mouse is over a trial: its number, outcome and hyperparameters."""
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
    """Return the figure with the selected trials' points as they are and all others faded.

    Only traces count whose points name their trials in ``customdata``.
    """
    if not selected:
        return figure
    for trace in figure.data:
        numbers = getattr(trace, "customdata", None)
        if numbers is not None and "selectedpoints" in trace:
            places = [place for place, number in enumerate(numbers) if number in selected]
            trace.update(selectedpoints=places, unselected={"marker": {"opacity": _FADED}})
    return figure
