"""The person recorded for an action."""

from __future__ import annotations

import getpass
import os


def current_actor() -> str:
    """Return the operating system's user of this process, by number if it has no name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user often has no entry in the system's list
        return f"user {os.getuid()}" if hasattr(os, "getuid") else "unknown user"
