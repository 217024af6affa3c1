"""Who looks at a page, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st
from sweeper_dashboard.access.sessions import sessions
from sweeper_dashboard.data import access


@dataclass(frozen=True)
class User:
    """Whoever looks at a page.

    Attributes:
        name: Recorded with everything they change.
        role: Viewers look; editors also change things.
        signed_in: Whether they had to sign in, so that they can sign out.
    """

    name: str
    role: access.Role
    signed_in: bool = False

    @property
    def may_edit(self) -> bool:
        """Whether they may change anything."""
        return self.role == "editor"


def user() -> User:
    """Return who looks at the page: where nobody must sign in, whoever runs the dashboard.

    The page ends here for who must sign in and has not: the gate lets nobody that far, but Streamlit started by itself
    has no gate.
    """
    if not sessions().are_needed():
        return User(access.current_actor(), "editor")
    account = sessions().whose(st.context.cookies.to_dict())
    if account is None:
        st.warning("Sign in first, at a dashboard started with `sweeper dashboard`.", icon=":material/lock:")
        st.stop()
    return User(account.name, account.role, signed_in=True)
