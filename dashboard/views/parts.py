"""What the pages share: errors as a page, plain tables, figures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from sweeper_dashboard.data import home


@contextmanager
def explained() -> Iterator[None]:
    """Show whatever sweeper can explain as text on the page, in place of the rest of the block."""
    try:
        yield
    except home.NothingYet as nothing:
        st.info("Nothing to show yet: no study has been run in this home.")
        st.text(str(nothing))
        st.code("sweeper run studies/quickstart.yaml", language=None)
    except home.SweeperError as error:
        st.error("This cannot be shown.")
        st.text(home.clean(error))


def table(frame: pd.DataFrame, **options: Any) -> Any:
    """Show a frame as plain text cells, its numbers with four digits; ``options`` are ``st.dataframe``'s."""
    formats = {name: st.column_config.NumberColumn(format="%.4g") for name in frame.select_dtypes("float")}
    return st.dataframe(frame, hide_index=True, column_config=formats, **options)


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
