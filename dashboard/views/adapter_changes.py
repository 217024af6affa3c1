"""A version beside another one, and what was done to its adapter."""

from __future__ import annotations

import streamlit as st
from sweeper_dashboard.data import adapters, changes
from sweeper_dashboard.data.adapters import Adapter
from sweeper_dashboard.views import parts


def differences(of: Adapter) -> None:
    """Show what changed from another version to this one."""
    others = [other for other in adapters.adapters() if other.name == of.name and other.version != of.version]
    if not others:
        st.info("There is no other version of this adapter yet.")
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
    st.caption("Scores; the difference is paired, with its 95 % interval, where both answered the same examples.")
    if found.scores.empty:
        st.info("Neither was scored.")
    else:
        parts.table(found.scores)
    st.caption("What is not the same")
    if found.changes.empty:
        st.info("Nothing: both come from the same trial.")
    else:
        parts.table(found.changes)
    with st.expander("Study file", expanded=bool(found.study_file)):
        if found.study_file:
            st.code(found.study_file, language=None, wrap_lines=True)
        else:
            st.info("The study files are the same.")


def history(of: Adapter) -> None:
    """Show who did what to the adapter, all its versions."""
    found = changes.history(of.name)
    if found.empty:
        st.info("Nothing was done to it yet since it was registered.")
        return
    forced = int((found["forced"] != "").sum())
    if forced:
        word = "action" if forced == 1 else "actions"
        st.badge(f"{forced} {word} against the gate", icon=":material/warning:", color="red")
    at = st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm:ss")
    st.dataframe(found, hide_index=True, column_config={"at (UTC)": at})
    st.caption("All versions, the latest first. Rows are never changed or deleted.")
