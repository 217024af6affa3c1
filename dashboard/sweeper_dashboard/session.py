"""The user of the current page."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from sweeper_dashboard.access.sessions import sessions
from sweeper_dashboard.data import access


@dataclass(frozen=True)
class User:
    """The user of a page.

    Attributes:
        name: Recorded with every change.
        role: Viewers only look; editors also make changes.
        signed_in: Whether they signed in, and so can sign out.
    """

    name: str
    role: access.Role
    signed_in: bool = False

    @property
    def may_edit(self) -> bool:
        """Whether they may make changes."""
        return self.role == "editor"


def user() -> User:
    """Return the user of the page: without sign-in, the one who runs the dashboard.

    The page ends here without a required sign-in, for Streamlit that was started without the gate.
    """
    if not sessions().are_needed():
        return User(access.current_actor(), "editor")
    account = sessions().whose(st.context.cookies.to_dict())
    if account is None:
        st.warning("Start the dashboard with `sweeper dashboard`, and sign in.", icon=":material/lock:")
        st.stop()
    return User(account.name, account.role, signed_in=True)
