"""Who does something on the command line."""

from __future__ import annotations

import getpass


def current_actor() -> str:
    """Return the name of the operating system's user; of one that has none, as in many containers, ``unknown``."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # KeyError until Python 3.12
        return "unknown"
