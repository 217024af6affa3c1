"""Texts side by side, with their differences marked."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st
from sweeper_dashboard.data import comparison, home

_BLOCK = (
    "white-space: pre-wrap; overflow-wrap: anywhere; max-height: 26rem; overflow-y: auto; margin: 0; padding: 0.7rem "
    "0.9rem; border-radius: 0.5rem; background: rgba(128, 140, 160, 0.12); font-size: 0.85rem;"
)
_STYLE = (
    "<style>.marked ins { text-decoration: underline 2px; background: rgba(23, 163, 152, 0.22); } "
    ".marked del { text-decoration: line-through; background: rgba(228, 87, 46, 0.18); opacity: 0.85; }</style>"
)


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
