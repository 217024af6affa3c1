"""Shared page elements: errors, metrics, sections, tables, figures, links."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from typing import Any, TypeVar

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from sweeper_dashboard.data import comparison, home
from sweeper_dashboard.data import studies as data

T = TypeVar("T")
_BLOCK = (
    "white-space: pre-wrap; overflow-wrap: anywhere; max-height: 26rem; overflow-y: auto; margin: 0; padding: 0.7rem "
    "0.9rem; border-radius: 0.5rem; background: rgba(128, 140, 160, 0.12); font-size: 0.85rem;"
)
_STYLE = (
    "<style>.marked ins { text-decoration: underline 2px; background: rgba(23, 163, 152, 0.22); } "
    ".marked del { text-decoration: line-through; background: rgba(228, 87, 46, 0.18); opacity: 0.85; }</style>"
)


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


def side_by_side(blocks: Sequence[tuple[str, str]], against: str, *, columns: int = 2) -> None:
    """Show texts in columns, with their differences to one of them underlined and struck through.

    Args:
        blocks: (heading, text) of each; headings are shown as plain text.
        against: The text that the others are marked against.
        columns: Texts per row.
    """
    for start in range(0, len(blocks), columns):
        row = blocks[start : start + columns]
        for place, (heading, text) in zip(st.columns(columns), row, strict=False):
            with place:
                st.text(home.clean(heading))
                st.html(
                    f'{_STYLE}<pre class="marked" style="{_BLOCK}">{comparison.marked_html(text, against) or " "}</pre>'
                )
    st.caption(f"{comparison.LEGEND[0].upper()}{comparison.LEGEND[1:]}.")


def headline(text: str) -> None:
    """Show a sentence in large type, letter by letter."""
    st.html(f'<p style="font-size: 1.2rem; font-weight: 650; margin: 0;">{comparison.plain_html(text)}</p>')
