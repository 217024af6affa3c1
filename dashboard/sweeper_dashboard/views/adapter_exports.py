"""The Export section of the Adapters page: a card per format, written and verified in a separate process."""

from __future__ import annotations

from typing import Literal

import streamlit as st

from sweeper_dashboard.data import exports
from sweeper_dashboard.data.adapters import Adapter
from sweeper_dashboard.views import editing, parts

REFRESH_S = 2
_STATES: dict[str, tuple[str, str, Literal["blue", "green", "red"]]] = {
    "running": ("Writing", ":material/progress_activity:", "blue"),
    "done": ("Written and verified", ":material/check_circle:", "green"),
    "failed": ("Failed", ":material/error:", "red"),
}


def show(of: Adapter) -> None:
    """Show a card for each format, refreshed while an export is running."""
    states = [exports.export(of.name, of.version, format).job.state for format in exports.FORMATS]
    running = "running" in states
    st.fragment(_cards, run_every=REFRESH_S if running else None)(of, running)


def _cards(of: Adapter, was_running: bool) -> None:
    with parts.explained():
        found = {format: exports.export(of.name, of.version, format) for format in exports.FORMATS}
        if was_running and not any(each.job.state == "running" for each in found.values()):
            st.rerun()
        for format, each in found.items():
            with st.container(border=True):
                _card(of, format, each)
        st.caption("Every export is loaded and compared with the registered adapter before it counts as done.")


def _card(of: Adapter, format: str, found: exports.Export) -> None:
    state = found.job.state
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        with st.container(width="content", gap=None):
            st.markdown(f"**{format}**")
            st.caption(exports.FORMATS[format])
        if state in _STATES:
            label, icon, colour = _STATES[state]
            st.badge(label, icon=icon, color=colour)
        label = "Export again" if state == "done" else "Export"
        if editing.button(label, key=f"export {format}", icon=":material/upload:", ready=state != "running"):
            editing.act(lambda actor: exports.start(of.name, of.version, format, actor))
    if state == "running":
        st.progress(0.5 if found.job.said else 0.1, text="This can take several minutes for a large model.")
        st.text(found.job.said)
    elif state == "failed":
        parts.command(found.job.said or "The export printed no message.")
    elif state == "done":
        _result(of, format, found)


def _result(of: Adapter, format: str, found: exports.Export) -> None:
    st.code(found.folder, language=None)
    if found.downloadable:
        st.download_button(
            f"Download ({found.bytes / 1e6:.1f} MB)",
            data=lambda: exports.zipped(of.name, of.version, format).open("rb"),
            file_name=f"{of.name}-v{of.version}-{format}.zip",
            mime="application/zip",
            key=f"download {format}",
            icon=":material/download:",
            on_click="ignore",
        )
    else:
        st.caption(f"Too large to download ({found.bytes / 1e6:.0f} MB); copy it from the folder above.")
    with st.expander(f"{len(found.files)} files, {len(found.notes)} notes"):
        parts.table(found.files)
        for note in found.notes:
            st.text(note)
