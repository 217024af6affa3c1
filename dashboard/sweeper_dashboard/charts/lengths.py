"""Histograms of row lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from sweeper_dashboard.charts.style import BAD, laid_out

_BARS = 40


def lengths(tokens: Mapping[str, Sequence[int]], max_length: int) -> go.Figure:
    """Draw the lengths of rows, a histogram per split.

    Args:
        tokens: The length of every counted row by split.
        max_length: Length to which rows are truncated, drawn as a line if any row comes near it.
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
            x=max_length, line_dash="dash", line_width=2, line_color=BAD, annotation_text=f"max_length {max_length:,}"
        )
    figure.update_xaxes(title="tokens per row before truncation", rangemode="tozero")
    return laid_out(figure, 320, barmode="overlay", yaxis_title="% of the split's rows")
