"""The registry: every version, and the picked one with its lineage, its way to production, its exports and history."""

from __future__ import annotations

import zlib

import pandas as pd
import streamlit as st
from sweeper_dashboard.data import adapters as data
from sweeper_dashboard.views import adapter_changes, adapter_exports, adapter_gate, adapter_origin, adapter_parts, parts

SECTIONS = {
    "Overview": adapter_origin.show,
    "Production": adapter_gate.show,
    "Changes": adapter_changes.differences,
    "Export": adapter_exports.show,
    "History": adapter_changes.history,
}


def page() -> None:
    """Show every version, and the one that the address names or a click picked."""
    st.title("Adapters")
    with parts.explained():
        found = data.adapters()
        if not found:
            st.info("No adapter is registered: a study registers its winner when it beats the base model.")
            return
        listed = _filtered(found)
        _list(listed)
        picked = _picked(found, listed)
        if picked is not None:
            _version(picked)


def _filtered(found: list[data.Adapter]) -> list[data.Adapter]:
    left, right = st.columns([2, 3], vertical_alignment="bottom")
    words = left.text_input(
        "Search",
        key="search",
        bind="query-params",
        placeholder="Name, tag, alias, note, study or base model",
        icon=":material/search:",
    )
    stages = right.pills("Stage", data.STAGES, selection_mode="multi", key="stages", bind="query-params")
    return [of for of in found if of.matches(words or "") and (not stages or of.stage in stages)]


def _list(listed: list[data.Adapter]) -> None:
    if not listed:
        st.info("No version fits the search and the stages.")
        return
    rows = [
        {
            "adapter": of.name,
            "version": of.version,
            "stage": [of.stage],
            "aliases": list(of.aliases),
            "tags": list(of.tags),
            "metric on test": of.metric,
            "score": of.score,
            "95 % interval": adapter_parts.span(of.low, of.high),
            "MiB": of.mebibytes,
            "age": of.age,
        }
        for of in listed
    ]
    # A selection is a place in the list, which means another version once the list is another one.
    listing = zlib.crc32(repr([(of.name, of.version) for of in listed]).encode())
    chosen = adapter_parts.selected(pd.DataFrame(rows), key=f"adapters {listing}")
    if chosen is None:
        st.session_state.pop("adapters clicked", None)
        return
    clicked = (listed[chosen].name, listed[chosen].version)
    if st.session_state.get("adapters clicked") != clicked:  # or an address opened later would be overruled by it
        st.session_state["adapters clicked"] = clicked
        adapter_parts.address(*clicked)


def _picked(found: list[data.Adapter], listed: list[data.Adapter]) -> data.Adapter | None:
    """Return the version that the address names, else the first of the list."""
    name, number = st.query_params.get("adapter"), st.query_params.get("version", "")
    if name is None:
        return data.adapter(listed[0].name, listed[0].version) if listed else None
    if number.isdecimal():
        return data.adapter(name, int(number))
    newest = next((of.version for of in found if of.name == name), 1)
    return data.adapter(name, newest)


def _version(picked: data.Adapter) -> None:
    st.divider()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(picked.label, width="content")  # a name is letters, digits, dots, dashes and underscores
        adapter_parts.stage(picked.stage)
        st.text(", ".join(picked.aliases))
    adapter_parts.told()
    section = st.segmented_control(
        "Section", list(SECTIONS), default="Overview", required=True, key="section", bind="query-params",
        label_visibility="collapsed",
    )  # fmt: skip
    with parts.explained():
        SECTIONS[section or "Overview"](picked)


page()
