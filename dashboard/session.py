"""Who looks at a page, and what they may do."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from typing import Literal

Role = Literal["viewer", "editor"]


@dataclass(frozen=True)
class User:
    """Whoever looks at a page.

    Attributes:
        name: Recorded with everything they change.
        role: Viewers look; editors also change things.
    """

    name: str
    role: Role

    @property
    def may_edit(self) -> bool:
        """Whether they may change anything."""
        return self.role == "editor"


def user() -> User:
    """Return who looks at the page: on this machine without users, whoever runs the dashboard."""
    return User(getpass.getuser(), "editor")
