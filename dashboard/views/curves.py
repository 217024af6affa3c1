"""Learning curves of the trials of a study."""

from __future__ import annotations

import streamlit as st
from sweeper_dashboard.charts import curves as charts
from sweeper_dashboard.data import search as data
from sweeper_dashboard.data.studies import Study
from sweeper_dashboard.views import selection


def section(study: Study) -> None:
    """Show one metric of many trials over steps, epochs, tokens or time."""
    begun = study.trials.loc[study.trials["steps"] > 0, "trial"].tolist()
    names = data.metric_names(study.snapshot, begun) if begun else []
    if not names:
        st.info("Nothing has been reported yet.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        metric = st.selectbox("Metric", names, key="metric", bind="query-params", width=200)
        over = st.segmented_control(
            "Over", list(charts.AXES), default="step", required=True, key="over", bind="query-params"
        )
        smoothing = st.slider("Smoothing", 0.0, 0.99, 0.0, 0.01, key="smoothing", bind="query-params", width=200)
        log_x = st.toggle("Log x", key="logx", bind="query-params")
        log_y = st.toggle("Log y", key="logy", bind="query-params")
    picked = selection.selected()
    points, reported = data.curves(study.snapshot, metric, picked)
    leaders = study.leaders["trial"].tolist()
    figure = charts.curves(
        points,
        study.trials,
        metric,
        over=over or "step",
        smoothing=smoothing,
        log_x=log_x,
        log_y=log_y,
        leader=leaders[0] if leaders else None,
        selected=picked,
        names=study.varied[:8],
    )
    selection.chart(figure, "curves")
    drawn = points["trial"].nunique()
    notes = ["Grey ended early; gaps are not finite."]
    if drawn < reported:
        notes.append(f"{drawn:,} of {reported:,} trials are drawn: picked, running, best, and others evenly spread.")
    if over == "tokens":
        notes.append("Tokens are spread evenly over a trial's steps.")
    st.caption(" ".join(notes))
