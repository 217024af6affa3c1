"""Charts of a study's data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

_HEIGHT = 320
_BARS = 40
_LINE = "#e4572e"
"""Seen in both themes."""


def lengths(tokens: Mapping[str, Sequence[int]], max_length: int) -> go.Figure:
    """Draw how long rows are, a histogram a split as shares of its rows, and where they are cut.

    Args:
        tokens: The tokens of every counted row by split.
        max_length: Where rows are cut; drawn as a line where the longest row comes near it.
    """
    figure = go.Figure()
    longest = max((max(found) for found in tokens.values() if found), default=1)
    width = max(1, -(-longest // _BARS))
    for split, found in tokens.items():
        figure.add_histogram(
            x=list(found),
            name=split,
            histnorm="percent",
            opacity=0.65,
            xbins={"start": 0, "end": longest + width, "size": width},
            hovertemplate="%{x} tokens: %{y:.1f} % of " + split + "<extra></extra>",
        )
    if longest * 1.5 >= max_length:
        figure.add_vline(
            x=max_length, line_dash="dash", line_width=2, line_color=_LINE, annotation_text=f"max_length {max_length:,}"
        )
    figure.update_layout(
        barmode="overlay",
        height=_HEIGHT,
        margin={"l": 10, "r": 10, "t": 30, "b": 10},
        legend={"orientation": "h", "y": 1.12},
        xaxis_title="tokens of a row before it is cut",
        xaxis_rangemode="tozero",
        yaxis_title="% of the split's rows",
    )
    return figure
