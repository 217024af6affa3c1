"""Sections of the Study page: leaderboard, learning curves, hyperparameters, and the schedule of trials."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from sweeper_dashboard.charts import curves as curve_charts
from sweeper_dashboard.charts import search as charts
from sweeper_dashboard.data import search as data
from sweeper_dashboard.data.studies import Study
from sweeper_dashboard.views import parts, selection

ROWS = 500
DRAWN = 1_500
COORDINATES = 300
_COLUMNS = 8


def overview(study: Study) -> None:
    """Show the leaderboard, the best value over time, and the trials that run or ended early."""
    if study.snapshot.leaders.empty:
        st.info("No trial has completed yet.")
    else:
        leaders = study.snapshot.leaders
        shown = leaders.head(ROWS)
        selection.table(shown, "leaderboard")
        st.caption(
            "Completed trials only. Configurations confirmed with new seeds come first, ranked by their mean, because "
            "the best of many single runs is partly luck; those that diverged with any seed come last."
            + (
                f" Showing the best {ROWS} of {len(study.snapshot.leaders):,}."
                if len(study.snapshot.leaders) > ROWS
                else ""
            )
        )
        st.text(f"The same in all trials: {study.constant}")
        _history(study)
    with st.expander("Running trials", expanded=True) if "running" in study.standing.outcomes else st.container():
        _running(study)
    _ended_early(study)


def _history(study: Study) -> None:
    picked = selection.selected()
    some = data.some(study.snapshot, DRAWN, picked)
    standing = study.standing
    figure = charts.history(
        some,
        standing.metric,
        standing.direction,
        names=study.snapshot.varied[:_COLUMNS],
        selected=picked,
        best=data.best_so_far(study.snapshot),
    )
    selection.chart(figure, "history")
    complete = standing.outcomes.get("complete", 0)
    if len(some) < complete:
        st.caption(f"{len(some):,} of {complete:,} completed trials are drawn: the best, and an even sample of others.")


def _running(study: Study) -> None:
    """Show the latest reported values of the trials that have not ended, NaN included."""
    running = study.snapshot.table.loc[study.snapshot.table["outcome"] == "running", "trial"].tolist()
    points = data.curve_rows(study.snapshot, running) if running else pd.DataFrame()
    if points.empty:
        return
    latest = points.drop_duplicates(["trial", "metric"], keep="last")
    values = latest.pivot(index="trial", columns="metric", values="value")
    steps = points.groupby("trial")["step"].max().rename("at step")
    planned = study.snapshot.table.set_index("trial")["planned steps"].rename("of")
    st.caption("Latest reported values")
    parts.table(steps.to_frame().join(planned).join(values).reset_index())


def _ended_early(study: Study) -> None:
    early = study.snapshot.table[~study.snapshot.table["outcome"].isin(["complete", "running"])]
    if early.empty:
        return
    st.subheader("Pruned and failed trials")
    first = ["trial", "outcome", "reason", "steps", "planned steps", "seconds"]
    selection.table(early[[*first, *study.snapshot.varied]].iloc[::-1].head(ROWS), "early")
    if len(early) > ROWS:
        st.caption(f"Showing the latest {ROWS} of {len(early):,}.")


def curves(study: Study) -> None:
    """Show one metric of many trials over steps, epochs, tokens or time."""
    begun = study.snapshot.table.loc[study.snapshot.table["steps"] > 0, "trial"].tolist()
    names = data.metric_names(study.snapshot, begun) if begun else []
    if not names:
        st.info("Nothing has been reported yet.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        metric = st.selectbox("Metric", names, key="metric", bind="query-params", width=200)
        axes = list(curve_charts.AXES)
        over = st.segmented_control("X axis", axes, default="step", required=True, key="over", bind="query-params")
        smoothing = st.slider("Smoothing", 0.0, 0.99, 0.0, 0.01, key="smoothing", bind="query-params", width=200)
        log_x = st.toggle("Log x", key="logx", bind="query-params")
        log_y = st.toggle("Log y", key="logy", bind="query-params")
    picked = selection.selected()
    points, reported = data.curves(study.snapshot, metric, picked)
    leaders = study.snapshot.leaders["trial"].tolist()
    figure = curve_charts.curves(
        points,
        study.snapshot.table,
        metric,
        over=over or "step",
        smoothing=smoothing,
        log_x=log_x,
        log_y=log_y,
        leader=leaders[0] if leaders else None,
        selected=picked,
        names=study.snapshot.varied[:_COLUMNS],
    )
    selection.chart(figure, "curves")
    notes = ["Grey: ended early. Gaps: NaN or infinite values."]
    drawn = points["trial"].nunique()
    if drawn < reported:
        notes.append(
            f"{drawn:,} of {reported:,} trials are drawn: selected, running and best ones, and a sample of others."
        )
    if over == "tokens":
        notes.append("Tokens are spread evenly over a trial's steps.")
    st.caption(" ".join(notes))


def parameters(study: Study) -> None:
    """Show importances, and the value over one, two and all hyperparameters."""
    names = data.drawable(study.snapshot)
    complete = study.standing.outcomes.get("complete", 0)
    if complete < 2 or not names:
        st.info("Hyperparameters are plotted against the value once completed trials differ in them.")
        return
    picked = selection.selected()
    picture = study.snapshot.once(("picture", complete, *picked), lambda: data.picture(study.snapshot, names, picked))
    drawn = len(picture.get_trials(deepcopy=False))
    st.caption(
        f"Completed trials only, because pruned ones have trained for less time; {drawn:,} of {complete:,} are drawn."
    )
    if study.standing.objectives:
        st.subheader("Pareto front")
        parts.figure(charts.front(picture), "front")
        return
    names = _importances(study, picture, complete) or names
    st.subheader("One at a time")
    selection.chart(charts.slices(picture, names[:_COLUMNS], picked), "slices")
    _pairs(picture, names)
    st.subheader("All together")
    few = study.snapshot.once(
        ("few", complete, *picked), lambda: data.picture(study.snapshot, names, picked, COORDINATES)
    )
    figure = study.snapshot.once(
        ("coordinates", complete, *picked), lambda: charts.parallel_coordinates(few, names[:_COLUMNS])
    )
    parts.figure(figure, "coordinates")
    with st.expander("All trials"):
        selection.table(study.snapshot.table, "trials", height="auto")


def _importances(study: Study, picture: data.InMemoryStudy, complete: int) -> list[str]:
    """Show the importances; return the names of the hyperparameters, the most important first."""
    if complete < 4:
        return []
    st.subheader("Importance")
    figure = study.snapshot.once(("importances", complete), lambda: charts.importances(picture))
    parts.figure(figure, "importances")
    st.caption("How much of what sets the best trials apart is due to each hyperparameter (PED-ANOVA).")
    return [str(name) for name in reversed(figure.data[0].y)]


def _pairs(picture: data.InMemoryStudy, names: list[str]) -> None:
    if len(names) < 2:
        return
    st.subheader("Two at a time")
    left, middle, right = st.columns(3)
    first = left.selectbox("First", names, key="first", bind="query-params")
    others = [name for name in names if name != first]
    second = middle.selectbox("Second", others, key="second", bind="query-params")
    kind = right.segmented_control("Plot", ["Contour", "Rank"], default="Contour", required=True, key="pair as")
    figure = charts.contour(picture, first, second) if kind == "Contour" else charts.ranks(picture, [first, second])
    parts.figure(figure, "pair")


def schedule(study: Study) -> None:
    """Show the slots over time, and the rungs of the pruner."""
    if study.snapshot.table.empty:
        st.info("No trial has started yet.")
        return
    picked = selection.selected()
    st.subheader("Slots")
    bars = data.bars(study.snapshot)
    selection.chart(charts.timeline(bars, study.snapshot.varied[:_COLUMNS], picked), "slots")
    if len(bars) < len(study.snapshot.table):
        st.caption(f"Showing the latest {len(bars):,} of {len(study.snapshot.table):,} trials.")
    st.subheader("Rungs")
    rungs = data.rungs(study.snapshot)
    if not rungs:
        st.caption("This study's pruner has no rungs: it compares trials at every evaluation.")
        return
    reached = data.reached(study.snapshot, rungs, picked)
    if reached.empty:
        st.caption("No trial has reached a rung yet.")
        return
    selection.chart(charts.rungs(reached, study.standing.metric, picked), "rungs")
    st.caption(
        f"{reached['trial'].nunique():,} trials at {len(rungs)} rungs. A cross marks a trial that ended before the "
        "next rung or has not reached it yet."
    )
