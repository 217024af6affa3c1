"""The Overview section of the Adapters page: key figures, lineage, tags, aliases, scores, and files."""

from __future__ import annotations

from functools import partial

import streamlit as st

from sweeper_dashboard.charts import adapters as charts
from sweeper_dashboard.charts import compare as score_charts
from sweeper_dashboard.data import changes, home
from sweeper_dashboard.data.adapters import Adapter
from sweeper_dashboard.views import editing, parts


def show(of: Adapter) -> None:
    """Show a version."""
    _figures(of)
    left, right = st.columns([3, 2], gap="medium")
    with left:
        _lineage(of)
    with right:
        _written(of)
        _aliases(of)
    _scores(of)
    tabs = st.tabs(["Hyperparameters", "Origin", "Files"])
    for tab, frame in zip(tabs, (of.hyperparameters, of.origin, of.file_table), strict=True):
        with tab:
            parts.table(frame)


def _figures(of: Adapter) -> None:
    score, gain = of.deciding.get("score"), of.deciding.get("diff_to_base")
    shown = {
        "Score on test": ("none" if score is None else f"{score:.4g}", of.interval and f"95 %: {of.interval}"),
        "Gain over base": ("none" if gain is None else f"{gain:+.4g}", "paired difference"),
        "Size": (f"{of.mebibytes:.1f} MiB", f"{len(of.files)} files"),
        "Registered": (of.age, f"{of.created_at:%Y-%m-%d %H:%M} UTC"),
    }
    for column, (label, (value, below)) in zip(st.columns(len(shown)), shown.items(), strict=True):
        with column.container(border=True):
            st.metric(label, value)
            st.caption(below or "no interval")


def _lineage(of: Adapter) -> None:
    with st.container(border=True):
        st.markdown("**Lineage**")
        bases = [f"adapter {each}" for each in of.built_on] or [f"base {home.clean(of.lineage.base_model)}"]
        bases += [] if of.lineage.initial_trial is None else [f"weights of trial {of.lineage.initial_trial}"]
        sources = [*bases, *(f"{split} data {digest[:8]}" for split, digest in of.lineage.data_sha256.items())]
        replaced = None if of.lineage.parent is None else f"{of.name} v{of.lineage.parent}"
        drawn = charts.lineage(
            sources, f"study {home.clean(of.lineage.study)}", f"trial {of.lineage.trial}", of.label, replaced
        )
        parts.figure(drawn, f"lineage {of.name} {of.version}")
        with st.container(horizontal=True):
            study = {"study": of.lineage.study}
            parts.link("Study", "study", study, icon=":material/monitoring:")
            parts.link("Trial", "trial", {**study, "trial": str(of.lineage.trial)}, icon=":material/target:")
            tried = {"adapters": f"{of.name}@{of.version}"}
            parts.link("Playground", "playground", tried, icon=":material/forum:")


def _written(of: Adapter) -> None:
    refused = editing.refusal()
    with st.form(f"written {of.name} {of.version}"):
        tags = st.text_input(
            "Tags, separated by commas", ", ".join(of.tags), disabled=refused is not None, max_chars=1_000
        )
        note = st.text_area("Note", of.note, height=100, disabled=refused is not None, max_chars=4_000)
        kept = st.form_submit_button("Save tags and note", disabled=refused is not None, help=refused)
    if kept:
        editing.act(lambda actor: changes.describe(of.name, of.version, actor, tags=tags, note=note))


def _aliases(of: Adapter) -> None:
    refused = editing.refusal()
    with st.container(border=True):
        st.markdown("**Aliases**")
        for alias in of.aliases:
            with st.container(horizontal=True, vertical_alignment="center"):
                st.text(alias)
                if editing.button("Remove", key=f"remove {alias}", type="tertiary"):
                    editing.act(partial(changes.remove_alias, of.name, of.version, alias))
        with st.container(horizontal=True, vertical_alignment="bottom"):
            given = st.text_input(
                "New alias", key=f"alias {of.name} {of.version}", placeholder="champion", disabled=refused is not None
            )
            if editing.button("Add", ready=bool(given)):
                editing.act(partial(changes.set_alias, of.name, of.version, given))
        st.caption("Adding an alias moves it here from any other version. Study files use it as adapter:NAME@ALIAS.")


def _scores(of: Adapter) -> None:
    st.markdown("**Scores at registration**")
    if of.score_table.empty:
        st.info("This version was never scored on a test split.")
        return
    parts.table(of.score_table)
    paired = of.score_table[of.score_table["diff_to_base"].notna()].assign(subject=of.label)
    if not paired.empty:
        st.caption("Gain over the base model on the same examples, with 95 % intervals. For losses, left is better.")
        drawn = score_charts.intervals(paired, "diff_to_base", "diff_low", "diff_high", zero=True)
        parts.figure(drawn, f"gains {of.name} {of.version}")
