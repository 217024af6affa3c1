"""What the search found: the leaderboard, the course of the best value, and what the hyperparameters did."""

from __future__ import annotations

import pandas as pd
import streamlit as st
from sweeper_dashboard.charts import search as charts
from sweeper_dashboard.data import search as data
from sweeper_dashboard.data.studies import Study
from sweeper_dashboard.views import parts, selection

ROWS = 500
DRAWN = 1_500
COORDINATES = 300
_COLUMNS = 8


def overview(study: Study) -> None:
    """Show the leaderboard and the course of the best value."""
    if study.leaders.empty:
        st.info("No trial is complete yet.")
    else:
        _leaderboard(study)
        _history(study)
    with st.expander("Under way", expanded=True) if "running" in study.standing.outcomes else st.container():
        _under_way(study)
    _ended_early(study)


def _leaderboard(study: Study) -> None:
    shown = study.leaders.head(ROWS)
    selection.table(shown, "leaderboard", column_config=parts.number_formats(shown), height=_height(len(shown)))
    st.caption(
        "Complete trials only. Configurations run again with fresh seeds come first, by the mean over their seeds, "
        "because the best of many single values is lucky; any that diverged with another seed come last."
        + (f" The best {ROWS} of {len(study.leaders):,}." if len(study.leaders) > ROWS else "")
    )
    st.text(f"The same in all trials: {study.constant}")


def _height(rows: int) -> int:
    return min(390, 40 + 35 * max(1, rows))


def _history(study: Study) -> None:
    picked = selection.selected()
    some = data.some(study.snapshot, DRAWN, picked)
    standing = study.standing
    figure = charts.history(
        some,
        standing.metric,
        standing.direction,
        names=study.varied[:_COLUMNS],
        selected=picked,
        best=data.best_so_far(study.snapshot),
    )
    selection.chart(figure, "history")
    complete = standing.outcomes.get("complete", 0)
    if len(some) < complete:
        st.caption(f"{len(some):,} of {complete:,} complete trials are drawn: the best, and others evenly spread.")


def _under_way(study: Study) -> None:
    """Show the last reported numbers of the trials that have not ended, NaN included."""
    running = study.trials.loc[study.trials["outcome"] == "running", "trial"].tolist()
    points = data.curve_rows(study.snapshot, running) if running else pd.DataFrame()
    if points.empty:
        return
    latest = points.drop_duplicates(["trial", "metric"], keep="last")
    values = latest.pivot(index="trial", columns="metric", values="value")
    steps = points.groupby("trial")["step"].max().rename("at step")
    planned = study.trials.set_index("trial")["planned steps"].rename("of")
    st.caption("Under way: the last of every number reported")
    parts.table(steps.to_frame().join(planned).join(values).reset_index())


def _ended_early(study: Study) -> None:
    early = study.trials[~study.trials["outcome"].isin(["complete", "running"])]
    if early.empty:
        return
    st.subheader("Pruned and failed")
    first = ["trial", "outcome", "reason", "steps", "planned steps", "seconds"]
    shown = early[[*first, *study.varied]].iloc[::-1].head(ROWS)
    selection.table(shown, "early", column_config=parts.number_formats(shown), height=_height(len(shown)))
    if len(early) > ROWS:
        st.caption(f"The latest {ROWS} of {len(early):,}.")


def parameters(study: Study) -> None:
    """Show importances, and the value over one, two and all hyperparameters."""
    names = data.drawable(study.snapshot)
    complete = study.standing.outcomes.get("complete", 0)
    if complete < 2 or not names:
        st.info("Once complete trials differ in a hyperparameter, it is drawn here against the value.")
        return
    picked = selection.selected()
    picture = study.snapshot.once(("picture", complete, *picked), lambda: data.picture(study.snapshot, names, picked))
    drawn = len(picture.get_trials(deepcopy=False))
    st.caption(
        f"Complete trials only: a pruned one's last value is of less training. {drawn:,} of {complete:,} are drawn."
    )
    if study.standing.objectives:
        st.subheader("Front")
        parts.figure(charts.front(picture), "front")
        return
    names = _importances(study, picture, complete) or names
    st.subheader("One by one")
    selection.chart(charts.slices(picture, names[:_COLUMNS], picked), "slices")
    _pairs(picture, names)
    st.subheader("All at once")
    few = study.snapshot.once(
        ("few", complete, *picked), lambda: data.picture(study.snapshot, names, picked, COORDINATES)
    )
    figure = study.snapshot.once(
        ("coordinates", complete, *picked), lambda: charts.parallel_coordinates(few, names[:_COLUMNS])
    )
    parts.figure(figure, "coordinates")
    with st.expander("All trials"):
        selection.table(study.trials, "trials", column_config=parts.number_formats(study.trials))


def _importances(study: Study, picture: charts.Study, complete: int) -> list[str]:
    """Show the importances; return the names of the hyperparameters, the most important first."""
    if complete < 4:
        return []
    st.subheader("Importance")
    figure = study.snapshot.once(("importances", complete), lambda: charts.importances(picture))
    parts.figure(figure, "importances")
    st.caption("How much of what sets the best trials apart each hyperparameter accounts for (PED-ANOVA).")
    return [str(name) for name in reversed(figure.data[0].y)]


def _pairs(picture: charts.Study, names: list[str]) -> None:
    if len(names) < 2:
        return
    st.subheader("Two at a time")
    left, middle, right = st.columns(3)
    first = left.selectbox("First", names, key="first", bind="query-params")
    others = [name for name in names if name != first]
    second = middle.selectbox("Second", others, key="second", bind="query-params")
    kind = right.segmented_control("Drawn as", ["Contour", "Rank"], default="Contour", required=True, key="pair as")
    figure = charts.contour(picture, first, second) if kind == "Contour" else charts.ranks(picture, [first, second])
    parts.figure(figure, "pair")
