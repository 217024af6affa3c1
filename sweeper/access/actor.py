"""Who does something, as the database remembers it."""

from __future__ import annotations

import getpass
import os


def current_actor() -> str:
    """Return the operating system's user who runs this process; a user without a name is called by their number."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user often has no entry in the system's list
        return f"user {os.getuid()}" if hasattr(os, "getuid") else "unknown user"
