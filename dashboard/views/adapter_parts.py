"""What the sections of the adapters page share."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import streamlit as st
from sweeper_dashboard import session
from sweeper_dashboard.views import parts

STAGES = ("candidate", "staging", "production", "archived")
_COLOURS = {"candidate": "gray", "staging": "orange", "production": "green", "archived": "gray"}
_ICONS = {
    "candidate": ":material/hourglass_empty:",
    "staging": ":material/science:",
    "production": ":material/verified:",
    "archived": ":material/inventory_2:",
}
_TOLD = "adapters told"


def address(name: str, version: int) -> None:
    """Let the address name a version."""
    st.query_params["adapter"] = name
    st.query_params["version"] = str(version)


def stage(stage: str) -> None:
    """Show a stage as a badge."""
    st.badge(stage, icon=_ICONS.get(stage), color=_COLOURS.get(stage, "gray"))


def selected(rows: pd.DataFrame, key: str) -> int | None:
    """Show versions, their stages coloured, and return the place of the picked one."""
    columns = {
        "stage": st.column_config.MultiselectColumn(
            options=STAGES, color=[_COLOURS[stage] for stage in STAGES], width=110
        ),
        "aliases": st.column_config.ListColumn(width=130),
        "tags": st.column_config.ListColumn(width=130),
        "score": st.column_config.NumberColumn(format="%.4g"),
        "MiB": st.column_config.NumberColumn(format="%.1f"),
    }
    found = st.dataframe(
        rows, hide_index=True, column_config=columns, key=key, on_select="rerun", selection_mode="single-row"
    )
    picked = found.selection.rows
    return picked[0] if picked and picked[0] < len(rows) else None


def span(low: float | None, high: float | None) -> str:
    """Return an interval as text."""
    return "" if low is None or high is None else f"{low:.3g} to {high:.3g}"


def why_not() -> str | None:
    """Return why whoever looks may change nothing; None where they may."""
    return None if session.user().may_edit else "Viewers see everything and change nothing."


def act(do: Callable[[str], str]) -> None:
    """Do something as whoever looks, and show the page again with what was done; a refusal is shown in its place."""
    user = session.user()
    if not user.may_edit:  # a disabled button sends nothing, but who knows what a browser sends
        st.error("Viewers see everything and change nothing.")
        return
    with parts.explained():
        st.session_state[_TOLD] = do(user.name)
        st.rerun()


def told() -> None:
    """Show once what was done last."""
    message = st.session_state.pop(_TOLD, None)
    if message:
        with st.container(border=True, horizontal=True):
            st.badge("Done", icon=":material/check:", color="green")
            st.text(message)
