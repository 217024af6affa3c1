"""A study's data as its training sees them: counts, lengths, what is cut, duplicates, and examples in tokens."""

from __future__ import annotations

import streamlit as st
from sweeper_dashboard.charts import rows as charts
from sweeper_dashboard.data import home
from sweeper_dashboard.data import rows as data
from sweeper_dashboard.data.studies import study_names
from sweeper_dashboard.views import parts, tokens

PAGE = 5
"""Examples shown at once."""


def page() -> None:
    """Show the data of the study that the address names, or of the latest."""
    st.title("Data")
    with parts.explained():
        name = parts.chosen_study(study_names())
        if name is None:
            st.info("No study has been run in this home yet.")
            return
        view = data.view(name, st.query_params.get("model"))
        if len(view.models) > 1:
            st.selectbox("In the tokens of", view.models, key="model", bind="query-params", format_func=home.clean)
        st.text(
            f"Technique {view.technique}, rows cut at {view.max_length:,} tokens; tokens of "
            f"{home.clean(view.inspection.model)}"
        )
        _overview(view)
        _duplicates(view)
        _browser(view)


def _overview(view: data.View) -> None:
    st.subheader("Splits side by side")
    parts.table(view.facts, height="content")
    for note in view.notes:
        st.caption(note)
    st.caption(
        "Rows whose end is cut teach their beginning only. Low shares of different words, and of different pairs, mean "
        "that answers say much the same."
    )
    st.subheader("Lengths")
    parts.figure(charts.lengths({split: view.lengths(split) for split in data.SPLITS}, view.max_length), "lengths")


def _duplicates(view: data.View) -> None:
    found = view.duplicates()
    st.subheader("Duplicates")
    if found.empty:
        st.caption("No row says the same as another, case and spaces aside.")
        return
    st.caption("Rows that say the same. One in test that is in train as well flatters every score.")
    parts.table(found)


def _browser(view: data.View) -> None:
    st.subheader("Examples")
    first, second, third = st.columns([4, 5, 4], vertical_alignment="bottom")
    with first:
        split = st.segmented_control(
            "Split", data.SPLITS, default="train", required=True, key="split", bind="query-params"
        )
    only = second.segmented_control(
        "Show", data.ONLY, default=data.ONLY[0], required=True, key="only", bind="query-params"
    )
    search = third.text_input("Search", key="q", bind="query-params", placeholder="words of a row")
    numbers = view.numbers(str(split), search, str(only))
    if not numbers:
        st.info("No row of this split is like that.")
        return
    pages = -(-len(numbers) // PAGE)
    left, right = st.columns([1, 5], vertical_alignment="bottom")
    if st.session_state.get("at", 1) > pages:
        st.session_state["at"] = pages  # fewer rows are looked for than before
    wanted = left.number_input("Page", 1, pages, key="at", bind="query-params")
    right.caption(f"of {pages:,}; {len(numbers):,} rows. {view.learning}")
    tokens.legend()
    for number in numbers[(int(wanted) - 1) * PAGE :][:PAGE]:
        with parts.explained():
            _example(view, str(split), number)


def _example(view: data.View, split: str, number: int) -> None:
    row = view.example(split, number)
    with st.container(border=True):
        doubled = {"exact": "; another row says the same", "near": "; another row says nearly the same"}
        left_out = f"; left out of training: {row.dropped}" if row.dropped else ""
        st.caption(f"Row {number + 1} of {split}{left_out}{doubled.get(view.kinds.get((split, number), ''), '')}")
        for column, passage in zip(st.columns(len(row.passages)), row.passages, strict=True):
            with column:
                lost = f", of them {passage.lost_loss_tokens:,} cut off" if passage.lost_loss_tokens else ""
                named = f"{passage.name}: " if len(row.passages) > 1 else ""
                more = f"; the first {tokens.SHOWN:,} are shown" if len(passage.tokens) > tokens.SHOWN else ""
                st.caption(f"{named}{len(passage.tokens):,} tokens, {passage.loss_tokens:,} with a loss{lost}{more}")
                tokens.passage(passage.tokens, 0 if row.dropped else passage.kept)


page()
