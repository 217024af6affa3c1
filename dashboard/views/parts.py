"""What the pages share: errors as a page, plain tables, figures, links."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from sweeper_dashboard.data import home
from sweeper_dashboard.data import studies as data


@contextmanager
def explained() -> Iterator[None]:
    """Show whatever sweeper can explain as text on the page, in place of the rest of the block."""
    try:
        yield
    except home.NothingYet as nothing:
        st.info("Nothing to show yet: no study has been run in this home.")
        st.text(home.said(nothing))
        st.code("sweeper run studies/quickstart.yaml", language=None)
    except home.SweeperError as error:
        st.error("This cannot be shown.")
        st.text(home.said(error))
        st.page_link("views/studies.py", label="All studies", icon=":material/science:", width="content")


def chosen_study(names: list[str], *of_one: str) -> str | None:
    """Let a study be chosen, and keep it in the address; the one that the address names, or the latest, at first.

    Args:
        names: The studies there are.
        of_one: What else the address says of a study; forgotten with it.

    Raises:
        StudyStateError: If the address names one that is not there; names the nearest.
    """
    wanted = st.query_params.get("study")
    if wanted is not None and wanted not in names:
        data.study(wanted)  # raises
    if not names:
        return None
    place = names.index(wanted) if wanted is not None else 0
    name = st.selectbox("Study", names, index=place, format_func=home.clean)
    if wanted is not None and name != wanted:
        for parameter in of_one:
            st.query_params.pop(parameter, None)
    st.query_params["study"] = name
    return name


def number_formats(frame: pd.DataFrame) -> dict[str, Any]:
    """Return column settings that show a frame's numbers with four digits."""
    return {name: st.column_config.NumberColumn(format="%.4g") for name in frame.select_dtypes("float")}


def table(frame: pd.DataFrame, **options: Any) -> Any:
    """Show a frame as plain text cells, its numbers with four digits; ``options`` are ``st.dataframe``'s."""
    return st.dataframe(frame, hide_index=True, column_config=number_formats(frame), placeholder="", **options)


def selected(frame: pd.DataFrame, key: str) -> int | None:
    """Show a frame whose rows can be picked, and return the place of the picked row."""
    rows = table(frame, key=key, on_select="rerun", selection_mode="single-row").selection.rows
    return rows[0] if rows and rows[0] < len(frame) else None


def figure(chart: go.Figure, key: str) -> None:
    """Show a chart."""
    st.plotly_chart(chart, key=key, config={"displaylogo": False})


def texts(**blocks: str) -> None:
    """Show texts side by side exactly as they are; the keywords are their headings."""
    for column, (heading, text) in zip(st.columns(len(blocks)), blocks.items(), strict=True):
        column.caption(heading.replace("_", " "))
        column.code(text or " ", language=None, wrap_lines=True)


def link(label: str, page: str, query: Mapping[str, str], *, icon: str) -> None:
    """Show a link to another page of the dashboard."""
    st.page_link(f"views/{page}.py", label=label, icon=icon, query_params=dict(query), width="content")


def proof(found: data.Proof) -> str:
    """Return in words what the test split says of a trial beside its base model."""
    words = f"test {found.metric}: trial {found.trial} {found.score:.3f}"
    if found.base is not None:
        words += f", base model {found.base:.3f}"
    if found.difference is not None and found.low is not None and found.high is not None:
        words += f" ({found.difference:+.3f}, 95 % interval {found.low:+.3f} to {found.high:+.3f})"
    return words
