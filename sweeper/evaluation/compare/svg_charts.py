"""Charts as SVG text: no script, no network, and colours that suit the page they stand on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sweeper.evaluation.compare.text_diff import plain_html

COLOURS = ("#2f6fed", "#e4572e", "#17a398", "#a855f7", "#d99a00", "#d6337c", "#5b8c2a", "#7b8794")
DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 4", "10 4", "4 2", "12 3 3 3")
"""Told apart by more than colour."""

_WIDTH, _LABEL, _ROW, _MARGIN = 860, 240, 30, 40


@dataclass(frozen=True)
class Bar:
    """A value with its interval; without one where it has none."""

    label: str
    value: float
    low: float | None
    high: float | None


def interval_chart(bars: Sequence[Bar], *, zero: bool = False) -> str:
    """Return values with their intervals as dots and whiskers, a row each; ``zero`` draws the line of no difference."""
    known = [end for bar in bars for end in (bar.value, bar.low, bar.high) if end is not None and math.isfinite(end)]
    low, high = _bounds([*known, *([0.0] if zero else [])])
    x = _scale(low, high, _LABEL, _WIDTH - _MARGIN - 60)
    height = _ROW * len(bars) + 34
    parts = [
        f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="4" y2="{height - 26}" class="grid"/>'
        f'<text x="{x(tick):.1f}" y="{height - 8}" class="tick">{tick:g}</text>'
        for tick in _ticks(low, high)
    ]
    if zero:
        parts.append(f'<line x1="{x(0):.1f}" x2="{x(0):.1f}" y1="4" y2="{height - 26}" class="zero"/>')
    for place, bar in enumerate(bars):
        y, colour = 4 + _ROW * (place + 0.5), COLOURS[place % len(COLOURS)]
        parts.append(f'<text x="{_LABEL - 12}" y="{y + 4}" class="label">{_short(bar.label)}</text>')
        if not math.isfinite(bar.value):
            continue
        if bar.low is not None and bar.high is not None and math.isfinite(bar.low + bar.high):
            ends = f'x1="{x(bar.low):.1f}" x2="{x(bar.high):.1f}" y1="{y}" y2="{y}"'
            parts.append(f'<line {ends} stroke="{colour}" stroke-width="3" stroke-linecap="round"/>')
        parts.append(f'<circle cx="{x(bar.value):.1f}" cy="{y}" r="5" fill="{colour}"/>')
        sign = "+" if zero else ""
        parts.append(f'<text x="{_WIDTH - 60}" y="{y + 4}" class="number">{bar.value:{sign}.3f}</text>')
    return _svg(height, parts)


def line_chart(lines: Mapping[str, Sequence[tuple[float, float]]], x_title: str) -> str:
    """Return curves, told apart by colour and dashes; values that are not finite leave a gap."""
    points = [point for line in lines.values() for point in line if math.isfinite(point[1])]
    if not points:
        return ""
    height = 320
    left, right = _bounds([point[0] for point in points])
    low, high = _bounds([point[1] for point in points])
    x, y = _scale(left, right, 70, _WIDTH - _LABEL), _scale(low, high, height - 50, 14)
    parts = [
        f'<line x1="70" x2="{_WIDTH - _LABEL}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" class="grid"/>'
        f'<text x="62" y="{y(tick) + 4:.1f}" class="label">{tick:g}</text>'
        for tick in _ticks(low, high)
    ]
    parts += [f'<text x="{x(tick):.1f}" y="{height - 30}" class="tick">{tick:g}</text>' for tick in _ticks(left, right)]
    parts.append(f'<text x="{(70 + _WIDTH - _LABEL) / 2}" y="{height - 8}" class="tick">{plain_html(x_title)}</text>')
    for place, (label, line) in enumerate(lines.items()):
        style = f'stroke="{COLOURS[place % 8]}" stroke-dasharray="{DASHES[place % 8]}"'
        for run in _runs(line):
            path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in run)
            parts.append(f'<polyline points="{path}" fill="none" stroke-width="2" {style}/>')
        at, begin = 24 + 22 * place, _WIDTH - _LABEL + 16
        parts.append(f'<line x1="{begin}" x2="{begin + 34}" y1="{at}" y2="{at}" stroke-width="2" {style}/>')
        parts.append(f'<text x="{begin + 42}" y="{at + 4}" class="legend">{_short(label)}</text>')
    return _svg(height, parts)


def _runs(line: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Return a line cut where its values are not finite."""
    runs: list[list[tuple[float, float]]] = [[]]
    for point in line:
        if math.isfinite(point[1]):
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    pad = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
    return low - pad, high + pad


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _ticks(low: float, high: float) -> list[float]:
    """Return some five round numbers between two bounds."""
    raw = (high - low) / 5
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first = math.ceil(low / step)
    return [round(place * step, 12) for place in range(first, math.floor(high / step) + 1)]


def _short(label: str) -> str:
    return plain_html(label if len(label) <= 30 else label[:29] + "…")


def _svg(height: float, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img">{"".join(parts)}</svg>'
