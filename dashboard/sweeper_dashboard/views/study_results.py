"""Sections of the Study page: scores on held-out data, generated outputs, and the study file."""

from __future__ import annotations

import streamlit as st

from sweeper_dashboard.charts import compare as charts
from sweeper_dashboard.data import studies as data
from sweeper_dashboard.views import parts


def scores(study: data.Study) -> None:
    """Show the final scores with their intervals."""
    if study.scores.empty:
        st.info("The best trials are scored once the search has ended.")
        return
    split = _split(study, "scores of")
    found = study.scores[study.scores["split"] == split].drop(columns=["trial", "split"])
    parts.table(found)
    st.caption("Scores with bootstrap 95 % intervals.")
    parts.figure(charts.intervals(found, "score", "low", "high"), "scores")
    paired = found[found["diff_to_base"].notna()]
    if not paired.empty:
        st.caption(
            "Trial minus base model on the same examples, with 95 % intervals. An interval that touches the dotted "
            "line shows no difference. Right is better; for eval_loss, perplexity and kl, left is better."
        )
        parts.figure(charts.intervals(paired, "diff_to_base", "diff_low", "diff_high", zero=True), "differences")


def outputs(study: data.Study) -> None:
    """Show a trial's generated texts beside its base model's."""
    split = "" if study.scores.empty else _split(study, "texts of")
    numbers = study.scored(split)
    if not numbers:
        st.info("No trial has been scored yet; generated texts are stored when the best trials are.")
        return
    left, right = st.columns(2)
    number = left.selectbox("Trial", numbers, key="texts of trial")
    metric = right.selectbox("Score", list(dict.fromkeys(study.scores["metric"])), key="texts by")
    examples = data.examples(study.standing.name, number, split, metric)
    if examples.empty:
        st.info("No examples of this trial are stored.")
        return
    row = parts.selected_example(examples, "examples")
    parts.texts(prompt=row["prompt"], reference=row["reference"])
    parts.texts(base_model=row["base model"], trial=row["trial"])


def origin(study: data.Study) -> None:
    """Show the study file as written and as resolved, and the events."""
    st.text(study.searched)
    written, resolved = st.columns(2)
    written.caption("As written")
    written.code(study.file_text, language=None)
    resolved.caption("As resolved, including every default")
    resolved.code(study.resolved, language=None, height=600)
    st.subheader("Events")
    parts.table(study.events.iloc[::-1])


def _split(study: data.Study, key: str) -> str:
    splits: list[str] = list(dict.fromkeys(study.scores["split"]))
    return st.selectbox("Split", splits, key=key) if len(splits) > 1 else splits[0]
