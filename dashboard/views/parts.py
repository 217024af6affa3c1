"""Shared page elements: errors, metrics, sections, tables, figures, links."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import contextmanager
from typing import Any, TypeVar

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from sweeper_dashboard.data import home
from sweeper_dashboard.data import studies as data

T = TypeVar("T")


@contextmanager
def explained() -> Iterator[None]:
    """Show an error of sweeper's as text on the page, in place of the rest of the block."""
    try:
        yield
    except home.NothingYet as nothing:
        empty_home()
        st.text(home.said(nothing))
    except home.SweeperError as error:
        st.error("This cannot be shown.")
        st.text(home.said(error))
        st.page_link("views/studies.py", label="All studies", icon=":material/science:", width="content")


def empty_home(studies: Sized = ()) -> bool:
    """Say how to run a study if there is none yet, and return whether that is so."""
    if not studies:
        st.info("Nothing to show yet: no study has been run in this home.")
        st.code("sweeper run studies/quickstart.yaml", language=None)
    return not studies


def chosen_study(names: list[str], *of_one: str) -> str | None:
    """Return the study that the user picks, kept in the address; at first the one in the address, or the latest.

    Args:
        names: All studies; with none, the page says how to run one and None is returned.
        of_one: Further parameters of the address that belong to a study, dropped when another one is picked.

    Raises:
        StudyStateError: If the address names an unknown study; the message names the nearest.
    """
    wanted = st.query_params.get("study")
    if wanted is not None and wanted not in names:
        data.study(wanted)  # raises
    if empty_home(names):
        return None
    place = names.index(wanted) if wanted is not None else 0
    name = st.selectbox("Study", names, index=place, format_func=home.clean)
    if wanted is not None and name != wanted:
        for parameter in of_one:
            st.query_params.pop(parameter, None)
    st.query_params["study"] = name
    return name


def metrics(shown: Mapping[str, str]) -> None:
    """Show short values in a row of boxes."""
    with st.container(horizontal=True):
        for label, value in shown.items():
            st.metric(label, value, border=True, width=max(130, 40 + 14 * len(value)))


def section(sections: Mapping[str, Callable[[T], None]]) -> Callable[[T], None]:
    """Let a section of the page be picked, kept in the address, and return what shows it; the first by default."""
    first = next(iter(sections))
    chosen = st.segmented_control(
        "Section", list(sections), default=first, required=True, key="section", bind="query-params",
        label_visibility="collapsed",
    )  # fmt: skip
    return sections[chosen or first]


def number_formats(frame: pd.DataFrame) -> dict[str, Any]:
    """Return column settings that show a frame's numbers with four digits."""
    return {name: st.column_config.NumberColumn(format="%.4g") for name in frame.select_dtypes("float")}


def table(frame: pd.DataFrame, **options: Any) -> Any:
    """Show a frame as plain text cells, its numbers with four digits; ``options`` are ``st.dataframe``'s."""
    return st.dataframe(frame, hide_index=True, column_config=number_formats(frame), placeholder="", **options)


def selected(frame: pd.DataFrame, key: str) -> int | None:
    """Show a frame whose rows can be selected, and return the position of the selected row."""
    rows = table(frame, key=key, on_select="rerun", selection_mode="single-row").selection.rows
    return rows[0] if rows and rows[0] < len(frame) else None


def selected_example(frame: pd.DataFrame, key: str) -> pd.Series[Any]:
    """Show examples, and return the selected one; the first by default."""
    row = frame.iloc[selected(frame, key) or 0]
    st.caption(f"Example {row['example']}. Tick the box in front of another row to see it in full.")
    return row


def figure(chart: go.Figure, key: str) -> None:
    """Show a chart."""
    st.plotly_chart(chart, key=key, config={"displaylogo": False})


def command(text: str) -> None:
    """Show a command or other text to copy, letter by letter."""
    st.code(text or " ", language=None, wrap_lines=True)


def texts(**blocks: str) -> None:
    """Show texts side by side, letter by letter; the keywords are their headings."""
    for column, (heading, text) in zip(st.columns(len(blocks)), blocks.items(), strict=True):
        column.caption(heading.replace("_", " "))
        with column:
            command(text)


def link(label: str, page: str, query: Mapping[str, str], *, icon: str) -> None:
    """Show a link to another page of the dashboard."""
    st.page_link(f"views/{page}.py", label=label, icon=icon, query_params=dict(query), width="content")
