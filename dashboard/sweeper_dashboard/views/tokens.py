"""Tokens of a training row: learned, context or truncated, told apart by more than colour."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from itertools import groupby
from typing import Any

import streamlit as st

from sweeper_dashboard.data.home import clean

SHOWN = 1_500
"""Tokens of a passage that are shown; the page says when there are more."""

_BOX = "font-family: monospace; white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.9; font-size: 0.86rem"
_TOKEN = "border-right: 1px solid rgba(128, 128, 128, 0.45); padding: 1px 0"
# Translucent colours, so that text keeps the theme's own and both themes can be read.
_LOOKS = {
    "loss": ("mark", "background: rgba(47, 111, 237, 0.24); color: inherit; border-bottom: 2px solid #2f6fed"),
    "context": ("span", "opacity: 0.62"),
    "cut": ("s", "background: rgba(228, 87, 46, 0.16); opacity: 0.8; text-decoration: line-through 2px #e4572e"),
}
_LEGEND = {"loss": "learned (has a loss)", "context": "context (no loss)", "cut": "truncated at max_length"}


def legend() -> None:
    """Show the legend of the marks."""
    parts = (_marked(state, escape(text)) for state, text in _LEGEND.items())
    st.html(f'<div style="{_BOX}" role="note" aria-label="legend">{"&ensp;".join(parts)}</div>')


def passage(tokens: Iterable[Any], kept: int) -> None:
    """Show the tokens of a passage; those from ``kept`` on are truncated."""
    shown = list(tokens)[:SHOWN]
    states = ["cut" if place >= kept else "loss" if token.loss else "context" for place, token in enumerate(shown)]
    body = "".join(
        _marked(state, "".join(_piece(token.text) for _, token in run))
        for state, run in groupby(zip(states, shown, strict=True), key=lambda pair: pair[0])
    )
    st.html(f'<div style="{_BOX}">{body or "&nbsp;"}</div>')


def _marked(state: str, body: str) -> str:
    tag, style = _LOOKS[state]
    return f'<{tag} style="{style}" title="{_LEGEND[state]}">{body}</{tag}>'


def _piece(text: str) -> str:
    """Return a token's text as HTML; a line break is shown as a symbol and kept."""
    shown = escape(clean(text)).replace("\n", "↵\n").replace("\t", "⇥\t")
    return f'<span style="{_TOKEN}">{shown}</span>'
