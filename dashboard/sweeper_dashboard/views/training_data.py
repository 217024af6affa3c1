"""The Data page: a study's rows as training sees them, with lengths, truncation, duplicates and tokens."""

from __future__ import annotations

import streamlit as st

from sweeper_dashboard.charts import lengths as charts
from sweeper_dashboard.data import home
from sweeper_dashboard.data import training_data as data
from sweeper_dashboard.data.studies import study_names
from sweeper_dashboard.views import parts, tokens

PAGE = 5
"""Examples per page."""


def page() -> None:
    """Show the data of the study in the address, or of the latest."""
    st.title("Data")
    with parts.explained():
        name = parts.chosen_study(study_names())
        if name is None:
            return
        view = data.view(name, st.query_params.get("model"))
        if len(view.models) > 1:
            st.selectbox("Tokenizer of", view.models, key="model", bind="query-params", format_func=home.clean)
        st.text(
            f"Technique {view.technique}; rows truncated at {view.max_length:,} tokens of "
            f"{home.clean(view.inspection.model)}"
        )
        _overview(view)
        _duplicates(view)
        _browser(view)


def _overview(view: data.TrainingData) -> None:
    st.subheader("Splits")
    parts.table(view.facts, height="content")
    for note in view.notes:
        st.caption(note)
    st.caption(
        "Only the beginning of a truncated row is learned. Low shares of distinct words and word pairs mean that the "
        "answers are much alike."
    )
    st.subheader("Lengths")
    parts.figure(charts.lengths({split: view.lengths(split) for split in data.SPLITS}, view.max_length), "lengths")


def _duplicates(view: data.TrainingData) -> None:
    found = view.duplicates()
    st.subheader("Duplicates")
    if found.empty:
        st.caption("No two rows say the same, ignoring case and spaces.")
        return
    st.caption("Rows that say the same. A test row that is also in train inflates every score.")
    parts.table(found)


def _browser(view: data.TrainingData) -> None:
    st.subheader("Examples")
    first, second, third = st.columns([4, 5, 4], vertical_alignment="bottom")
    with first:
        split = st.segmented_control(
            "Split", data.SPLITS, default="train", required=True, key="split", bind="query-params"
        )
    only = second.segmented_control(
        "Show", data.ONLY, default=data.ONLY[0], required=True, key="only", bind="query-params"
    )
    search = third.text_input("Search", key="q", bind="query-params", placeholder="text in a row")
    numbers = view.numbers(str(split), search, str(only))
    if not numbers:
        st.info("No rows of this split match.")
        return
    pages = -(-len(numbers) // PAGE)
    left, right = st.columns([1, 5], vertical_alignment="bottom")
    if st.session_state.get("at", 1) > pages:
        st.session_state["at"] = pages  # fewer rows match than before
    wanted = left.number_input("Page", 1, pages, key="at", bind="query-params")
    right.caption(f"of {pages:,} ({len(numbers):,} rows). {view.learning}")
    tokens.legend()
    for number in numbers[(int(wanted) - 1) * PAGE :][:PAGE]:
        with parts.explained():
            _example(view, str(split), number)


def _example(view: data.TrainingData, split: str, number: int) -> None:
    row = view.example(split, number)
    with st.container(border=True):
        doubled = {"exact": "; duplicate of another row", "near": "; near-duplicate of another row"}
        left_out = f"; excluded from training: {row.dropped}" if row.dropped else ""
        st.caption(f"Row {number + 1} of {split}{left_out}{doubled.get(view.kinds.get((split, number), ''), '')}")
        for column, passage in zip(st.columns(len(row.passages)), row.passages, strict=True):
            with column:
                lost = f", {passage.lost_loss_tokens:,} of them truncated" if passage.lost_loss_tokens else ""
                named = f"{passage.name}: " if len(row.passages) > 1 else ""
                more = f"; showing the first {tokens.SHOWN:,}" if len(passage.tokens) > tokens.SHOWN else ""
                st.caption(f"{named}{len(passage.tokens):,} tokens, {passage.loss_tokens:,} learned{lost}{more}")
                tokens.passage(passage.tokens, 0 if row.dropped else passage.kept)


page()
