"""The Adapters page: every registered version, and one of them with its lineage, gate, exports and history."""

from __future__ import annotations

import zlib
from typing import Literal

import pandas as pd
import streamlit as st

from sweeper_dashboard.data import adapters as data
from sweeper_dashboard.data import home
from sweeper_dashboard.views import adapter_changes, adapter_exports, adapter_gate, adapter_overview, editing, parts

Colour = Literal["gray", "orange", "green"]
_STAGES: dict[str, tuple[str, Colour]] = {
    "candidate": (":material/hourglass_empty:", "gray"),
    "staging": (":material/science:", "orange"),
    "production": (":material/verified:", "green"),
    "archived": (":material/inventory_2:", "gray"),
}
SECTIONS = {
    "Overview": adapter_overview.show,
    "Production": adapter_gate.show,
    "Changes": adapter_changes.differences,
    "Export": adapter_exports.show,
    "History": adapter_changes.history,
}


def page() -> None:
    """Show every version, and the selected one, kept in the address."""
    st.title("Adapters")
    with parts.explained():
        found = data.adapters()
        if not found:
            st.info("No adapter is registered yet. A study registers its winner if it beats the base model.")
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
        st.info("No versions match these filters.")
        return
    rows = [
        {
            "adapter": of.name,
            "version": of.version,
            "stage": [of.stage.value],
            "aliases": list(of.aliases),
            "tags": list(of.tags),
            "metric on test": home.clean(of.deciding.get("metric", "")),
            "score": of.deciding.get("score"),
            "95 % interval": of.interval,
            "MiB": of.mebibytes,
            "age": of.age,
        }
        for of in listed
    ]
    # A selection is a position in the list, so another list needs another widget.
    listing = zlib.crc32(repr([(of.name, of.version) for of in listed]).encode())
    columns = {
        "stage": st.column_config.MultiselectColumn(
            options=list(_STAGES), color=[colour for _, colour in _STAGES.values()], width=110
        ),
        "aliases": st.column_config.ListColumn(width=130),
        "tags": st.column_config.ListColumn(width=130),
        "score": st.column_config.NumberColumn(format="%.4g"),
        "MiB": st.column_config.NumberColumn(format="%.1f"),
    }
    selected = st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        column_config=columns,
        key=f"adapters {listing}",
        on_select="rerun",
        selection_mode="single-row",
    ).selection.rows
    chosen = selected[0] if selected and selected[0] < len(rows) else None
    if chosen is None:
        st.session_state.pop("adapters clicked", None)
        return
    clicked = (listed[chosen].name, listed[chosen].version)
    if st.session_state.get("adapters clicked") != clicked:  # else it would override an address opened later
        st.session_state["adapters clicked"] = clicked
        st.query_params["adapter"], st.query_params["version"] = clicked[0], str(clicked[1])


def _picked(found: list[data.Adapter], listed: list[data.Adapter]) -> data.Adapter | None:
    """Return the version in the address, else the first of the list."""
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
        icon, colour = _STAGES.get(picked.stage, _STAGES["archived"])
        st.badge(picked.stage.value, icon=icon, color=colour)
        st.text(", ".join(picked.aliases))
    editing.outcome()
    show = parts.section(SECTIONS)
    with parts.explained():
        show(picked)


page()
