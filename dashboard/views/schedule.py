"""When trials trained, and where the pruner ended them."""

from __future__ import annotations

import streamlit as st
from sweeper_dashboard.charts import search as charts
from sweeper_dashboard.data import search as data
from sweeper_dashboard.data.studies import Study
from sweeper_dashboard.views import selection


def section(study: Study) -> None:
    """Show the slots over time, and the rungs of the pruner."""
    if study.trials.empty:
        st.info("No trial has begun yet.")
        return
    picked = selection.selected()
    st.subheader("Slots")
    bars = data.bars(study.snapshot)
    selection.chart(charts.timeline(bars, study.varied[:8], picked), "slots")
    if len(bars) < len(study.trials):
        st.caption(f"The latest {len(bars):,} of {len(study.trials):,} trials.")
    st.subheader("Rungs")
    rungs = data.rungs(study.snapshot)
    if not rungs:
        st.caption("This study's pruner compares trials at every evaluation: it has no rungs.")
        return
    reached = data.reached(study.snapshot, rungs, picked)
    if reached.empty:
        st.caption("No trial has reached a rung yet.")
        return
    selection.chart(charts.rungs(reached, study.standing.metric, picked), "rungs")
    st.caption(
        f"{reached['trial'].nunique():,} trials at {len(rungs)} rungs. A cross ended between this rung and the next, "
        "or is still on its way."
    )
