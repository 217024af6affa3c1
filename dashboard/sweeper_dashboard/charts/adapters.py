"""Figures of registered adapters: the gate and the lineage."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from sweeper_dashboard.charts.style import ACCENT, BAD, GOOD, GREY, laid_out, plain, short


def gate(gain: float, low: float, high: float, margin: float, passed: bool) -> go.Figure:
    """Draw the interval of a candidate's gain, which must lie above a margin to pass."""
    figure = go.Figure()
    error = {"type": "data", "array": [high - gain], "arrayminus": [gain - low], "thickness": 3, "width": 10}
    colour = GOOD if passed else BAD
    figure.add_scatter(
        x=[gain],
        y=["gain"],
        error_x=error,
        mode="markers",
        marker={"size": 13, "color": colour},
        hovertemplate=f"gain {gain:+.4g}<br>95 % interval {low:+.4g} to {high:+.4g}<extra></extra>",
    )
    figure.add_vline(x=0, line_dash="dot", line_color=GREY, annotation={"text": "no difference", "font_size": 11})
    if margin > 0:
        figure.add_vline(x=margin, line_color=ACCENT, annotation_text="margin", annotation_position="bottom right")
    reach = max(abs(low), abs(high), margin) * 1.15 or 1.0
    figure.update_xaxes(range=[-reach, reach], zeroline=False, title="gain (higher is better)")
    figure.update_yaxes(visible=False)
    return laid_out(figure, 150, showlegend=False)


def lineage(sources: Sequence[str], study: str, trial: str, version: str, replaced: str | None) -> go.Figure:
    """Draw the lineage of a version from left to right: sources, study, trial, version.

    Args:
        sources: Base model or adapters, and data.
        study: The study.
        trial: The trial.
        version: The version.
        replaced: The version that it was trained to replace.
    """
    height = max(1, len(sources) - 1)
    middle = height / 2
    places = {(0.0, float(height - row)): text for row, text in enumerate(sources)}
    if len(sources) == 1:
        places = {(0.0, middle): sources[0]}
    chain = [(1.0, middle, study), (2.0, middle, trial), (3.0, middle, version)]
    figure = go.Figure()
    for x, y in places:
        _line(figure, (x, y), (1.0, middle))
    _line(figure, (1.0, middle), (3.0, middle))
    nodes = [(x, y, text, GREY) for (x, y), text in places.items()]
    nodes += [(x, y, text, GOOD if x == 3 else ACCENT) for x, y, text in chain]
    if replaced is not None:
        _line(figure, (3.0, middle), (3.0, middle - 0.9), dash="dot")
        nodes.append((3.0, middle - 0.9, f"replaces {replaced}", GREY))
    figure.add_scatter(
        x=[x for x, *_ in nodes],
        y=[y for _, y, *_ in nodes],
        mode="markers+text",
        marker={"size": 16, "color": [colour for *_, colour in nodes]},
        text=[short(text) for _, _, text, _ in nodes],
        textposition=["bottom center" if y < middle else "top center" for _, y, *_ in nodes],
        hovertext=[plain(text) for _, _, text, _ in nodes],
        hoverinfo="text",
        cliponaxis=False,
    )
    lowest = min(y for _, y, *_ in nodes)
    figure.update_xaxes(visible=False, range=[-0.45, 3.45], fixedrange=True)
    figure.update_yaxes(visible=False, range=[lowest - 0.6, height + 0.6], fixedrange=True)
    tall = 90 + 70 * (height - lowest + 0.5)
    return laid_out(figure, int(tall), margin={"l": 10, "r": 10, "t": 10, "b": 10}, showlegend=False)


def _line(figure: go.Figure, start: tuple[float, float], end: tuple[float, float], dash: str = "solid") -> None:
    figure.add_scatter(
        x=[start[0], end[0]],
        y=[start[1], end[1]],
        mode="lines",
        line={"color": GREY, "width": 1.5, "dash": dash},
        hoverinfo="skip",
    )
