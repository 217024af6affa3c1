"""The selected trials: one selection for the leaderboard and all charts of a study, kept in the address."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from sweeper_dashboard.views import parts

PARAMETER = "trials"
MOST = 50
_DRAWN = "drawn anew"
_CONFIG = {"displaylogo": False, "scrollZoom": False}


def selected() -> list[int]:
    """Return the selected trials, as the address names them."""
    words = st.query_params.get(PARAMETER, "").split(",")
    return [int(word) for word in words if word.isascii() and word.isdigit()][:MOST]


def select(numbers: Iterable[int]) -> None:
    """Select trials."""
    chosen = list(dict.fromkeys(int(number) for number in numbers))[:MOST]
    if chosen:
        st.query_params[PARAMETER] = ",".join(map(str, chosen))
    else:
        st.query_params.pop(PARAMETER, None)


def clear() -> None:
    """Clear the selection, also in every widget that keeps one."""
    select([])
    _draw_anew(except_for=None)


def chart(figure: go.Figure, name: str) -> None:
    """Show a chart whose points name their trials in ``customdata``; selecting points selects trials everywhere."""
    key = _key(name)
    st.plotly_chart(
        figure,
        key=key,
        config=_CONFIG,
        on_select=lambda: _from_points(name, key),
        selection_mode=("points", "box", "lasso"),
    )


def table(frame: pd.DataFrame, name: str, **options: Any) -> None:
    """Show a table of trials with a column ``trial``; ticking rows selects trials everywhere."""
    key, numbers = _key(name), frame["trial"].tolist()
    chosen = set(selected())
    ticked = [place for place, number in enumerate(numbers) if number in chosen]
    st.dataframe(
        frame,
        key=key,
        hide_index=True,
        placeholder="",
        on_select=lambda: _from_rows(name, key, numbers),
        selection_mode="multi-row",
        selection_default={"selection": {"rows": ticked}},
        column_config=parts.number_formats(frame),
        **{"height": min(390, 40 + 35 * max(1, len(frame))), **options},
    )


def _from_points(name: str, key: str) -> None:
    points = st.session_state[key]["selection"]["points"]
    found = [point.get("customdata") for point in points]
    select(number[0] if isinstance(number, list) else number for number in found if number is not None)
    _draw_anew(except_for=name)


def _from_rows(name: str, key: str, numbers: Sequence[int]) -> None:
    select(numbers[place] for place in st.session_state[key]["selection"]["rows"] if place < len(numbers))
    _draw_anew(except_for=name)


def _key(name: str) -> str:
    """Return the widget's key, which changes when something else changes the selection."""
    times: dict[str, int] = st.session_state.setdefault(_DRAWN, {})
    return f"{name} {times.setdefault(name, 0)}"


def _draw_anew(except_for: str | None) -> None:
    times: dict[str, int] = st.session_state.setdefault(_DRAWN, {})
    for name in times:
        if name != except_for:
            times[name] += 1
