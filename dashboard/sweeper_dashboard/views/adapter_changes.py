"""Sections of the Adapters page: differences to another version, and the history of the adapter."""

from __future__ import annotations

import streamlit as st

from sweeper_dashboard.data import adapters, changes
from sweeper_dashboard.data.adapters import Adapter
from sweeper_dashboard.views import parts


def differences(of: Adapter) -> None:
    """Show what changed from another version to this one."""
    others = [other for other in adapters.adapters() if other.name == of.name and other.version != of.version]
    if not others:
        st.info("This adapter has no other version yet.")
        return
    numbers = sorted((other.version for other in others), key=lambda number: (number > of.version, -number))
    stages = {other.version: other.stage for other in others}
    old = st.selectbox(
        "Compared with",
        numbers,
        format_func=lambda number: f"v{number} ({stages[number]})",
        key=f"against {of.name} {of.version}",
    )
    found = changes.changed(of.name, old, of.version)
    st.caption("Scores, with the paired difference and its 95 % interval if both answered the same examples.")
    if found.scores.empty:
        st.info("Neither version was scored.")
    else:
        parts.table(found.scores)
    st.caption("Differences")
    if found.changes.empty:
        st.info("None: both versions come from the same trial.")
    else:
        parts.table(found.changes)
    with st.expander("Study file", expanded=bool(found.study_file)):
        if found.study_file:
            parts.command(found.study_file)
        else:
            st.info("The study files are identical.")


def history(of: Adapter) -> None:
    """Show who changed what in all versions of the adapter."""
    found = changes.history(of.name)
    if found.empty:
        st.info("Nothing has changed since it was registered.")
        return
    forced = int((found["forced"] != "").sum())
    if forced:
        word = "action" if forced == 1 else "actions"
        st.badge(f"{forced} forced {word}", icon=":material/warning:", color="red")
    at = st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm:ss")
    st.dataframe(found, hide_index=True, column_config={"at (UTC)": at})
    st.caption("All versions, latest first. Entries are never changed or deleted.")
