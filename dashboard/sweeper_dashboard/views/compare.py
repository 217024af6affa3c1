"""The Compare page: trials, registered versions and base models side by side, with a verdict and a report."""

from __future__ import annotations

from functools import partial

import pandas as pd
import streamlit as st

from sweeper_dashboard.charts import compare as charts
from sweeper_dashboard.data import comparison as data
from sweeper_dashboard.data import home
from sweeper_dashboard.views import parts

_HOW = (
    "A trial is STUDY:NUMBER, a registered version NAME@VERSION, a base model STUDY:base. You can also type names that "
    "are not listed."
)


def page() -> None:
    """Show the subjects in the address side by side."""
    st.title("Compare")
    with parts.explained():
        known = data.choices()
        keys = _subjects(known)
        if len(keys) < data.FEWEST:
            st.info("Pick two to eight trials, adapters or base models, and one of them as the reference.")
            if not known:
                st.caption("There is nothing to pick yet: no trial in this home has completed.")
            return
        left, right = st.columns(2)
        with left:
            reference = _reference(keys)
        found = data.compare(keys, reference)
        with right:
            found = _by_metric(found, keys, reference)
        _verdict(found)
        parts.section(SECTIONS)(found)


def _subjects(known: list[str]) -> list[str]:
    """Let the subjects be picked, kept in the address."""
    wanted = list(dict.fromkeys(key for key in st.query_params.get("subjects", "").split(",") if key))
    keys = st.multiselect(
        "Subjects",
        list(dict.fromkeys([*wanted, *known])),
        default=wanted,
        format_func=home.clean,
        accept_new_options=True,
        placeholder="Pick or type two to eight names",
        help=_HOW,
    )
    if keys != wanted:
        st.query_params["subjects"] = ",".join(keys)
        st.rerun()
    return keys


def _reference(keys: list[str]) -> str:
    wanted = st.query_params.get("reference")
    place = keys.index(wanted) if wanted in keys else 0
    reference = st.selectbox("Reference", keys, index=place, format_func=home.clean)
    st.query_params["reference"] = reference
    return reference


def _by_metric(found: data.SideBySide, keys: list[str], reference: str) -> data.SideBySide:
    """Let another metric be picked, and return the comparison by it."""
    if len(found.metrics) < 2 or found.metric is None:
        return found
    wanted = st.query_params.get("metric")
    metrics = list(found.metrics)
    place = metrics.index(wanted if wanted in metrics else found.metric)
    metric = st.selectbox("Metric", metrics, index=place, format_func=home.clean)
    st.query_params["metric"] = metric
    if metric == found.metric:
        return found
    return data.compare(keys, reference, metric)


def _verdict(found: data.SideBySide) -> None:
    conclusion = data.conclude(found)
    with st.container(border=True):
        parts.headline(conclusion.headline)
        st.text(home.clean("\n".join(conclusion.sentences)))
        if found.metrics:
            st.caption(data.CORRECTION)


def _scores(found: data.SideBySide) -> None:
    parts.table(data.subjects(found))
    scores = data.scores(found)
    if scores.empty:
        st.info("None of these was scored on the test split.")
        return
    own = scores[scores["metric"] == found.metric]
    order = data.keys(found)
    left, right = st.columns(2)
    with left:
        parts.figure(
            charts.spans(own, "score", "low", "high", f"{found.metric}, 95 % intervals", order), "own intervals"
        )
    with right:
        paired = own[own["difference"].notna()]
        if paired.empty:
            st.info("No paired comparison with the reference is possible.")
        else:
            title = f"paired difference from {found.reference}"
            parts.figure(
                charts.spans(paired, "difference", "diff_low", "diff_high", title, order, zero=True), "differences"
            )
    better = "Left" if data.smaller_is_better(str(found.metric)) else "Right"
    st.caption(f"{better} is better. An interval that touches the dotted line shows no difference.")
    parts.table(scores.rename(columns={"diff_low": "from", "diff_high": "to"}))
    bounded = data.bounded(found)
    if bounded:
        parts.figure(charts.profile(scores, bounded, order), "profile")
        st.caption("Metrics from 0 to 1; larger is better.")


def _examples(found: data.SideBySide) -> None:
    if not found.examples:
        st.info("None of these was scored on the same examples as the reference.")
        return
    table = data.examples(found)
    wins = pd.DataFrame(
        {
            "subject": [home.clean(key) for key in found.examples],
            "wins": [len(one.wins) for one in found.examples.values()],
            "losses": [len(one.losses) for one in found.examples.values()],
            "ties": [len(one.ties) for one in found.examples.values()],
        }
    )
    parts.table(wins)
    differing = (table["differs"] != "").sum()
    options = ["differing", "all"]
    kind = st.segmented_control(
        "Examples",
        options,
        default=options[0] if differing else "all",
        format_func=lambda of: f"{of} ({differing if of == options[0] else len(table)})",
        required=True,
    )
    chosen = table[table["differs"] != ""] if kind == options[0] else table
    if chosen.empty:
        st.info("They score the same on every example.")
        return
    row = parts.selected_example(chosen, f"compared examples {kind}")
    parts.texts(prompt=row["prompt"], reference_answer=row["due"])
    blocks = data.texts(found, int(row["example"]))
    parts.side_by_side(blocks, against=blocks[0][1])


def _curves(found: data.SideBySide) -> None:
    metric, points = data.curves(found)
    if points.empty:
        st.info("None of these has reported the metric that ranked trials in the reference's study.")
        return
    parts.figure(charts.curves(points, metric, data.keys(found)), "compared curves")
    st.caption("The metric of the search on the validation split, at equal progress. Gaps: NaN or infinite values.")


def _differs(found: data.SideBySide) -> None:
    keys = [subject.key for subject in found.subjects]
    st.subheader("Hyperparameters")
    if not found.parameters:
        st.caption("Base models have none.")
    parts.table(data.rows(found.parameters, keys))
    if found.costs:
        st.subheader("Cost")
        parts.table(data.rows(found.costs, keys))
    st.subheader("Origin")
    parts.table(data.rows(found.origins, keys))


def _report(found: data.SideBySide) -> None:
    st.caption(
        "The verdict, the tables, the charts, the examples on which they differ, and the hashes that identify what was "
        "compared. The HTML page works offline and runs no scripts."
    )
    with st.container(horizontal=True):
        for kind, label, mime in (("html", "HTML", "text/html"), ("md", "Markdown", "text/markdown")):
            st.download_button(
                f"Download as {label}",
                partial(data.report, found, kind),
                file_name=f"comparison.{kind}",
                mime=mime,
                icon=":material/download:",
                on_click="ignore",
            )
    st.caption("On the command line:")
    parts.command(data.command(found))


SECTIONS = {
    "Scores": _scores,
    "Examples": _examples,
    "Curves": _curves,
    "Differences": _differs,
    "Report": _report,
}

page()
