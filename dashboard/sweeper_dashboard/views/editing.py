"""Changes made from pages: by editors only, with the outcome shown once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from sweeper_dashboard import session
from sweeper_dashboard.data import home

_OUTCOME = "outcome"


def refusal() -> str | None:
    """Return why the user may not change anything; None for editors."""
    return None if session.user().may_edit else "Viewers can see everything but change nothing."


def button(label: str, *, ready: bool = True, help: str | None = None, **options: Any) -> bool:
    """Show a button that is disabled for viewers and until ``ready``."""
    refused = refusal()
    return st.button(label, disabled=refused is not None or not ready, help=refused or help, **options)


def act(change: Callable[[str], str]) -> None:
    """Make a change in the user's name and rerun the page, which then shows what became of it.

    The role is checked again: a disabled button is no guarantee of what a browser sends.
    """
    user = session.user()
    try:
        if not user.may_edit:
            raise home.UserError("Only editors can change anything.")
        done, text = True, change(user.name)
    except home.SweeperError as error:
        done, text = False, home.said(error)
    st.session_state[_OUTCOME] = (done, text)
    st.rerun(scope="app")


def outcome() -> None:
    """Show the outcome of the last change, once."""
    done, text = st.session_state.pop(_OUTCOME, (True, ""))
    if not done:
        st.error("This could not be done.")
        st.text(text)
    elif text:
        with st.container(border=True, horizontal=True):
            st.badge("Done", icon=":material/check:", color="green")
            st.text(text)
