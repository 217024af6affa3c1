"""What people write on versions: aliases, tags and notes, and what may stand in them."""

from __future__ import annotations

import re

from sweeper.config.study import valid_name
from sweeper.errors import RegistryError
from sweeper.store import Stage

NOTE_LENGTH = 4_000
_NUMBER = re.compile(r"v?\d+", re.IGNORECASE)
_RESERVED = ("latest", *Stage)


def valid_alias(alias: str) -> str:
    """Return an alias if it can stand where a version's number or stage can, and is neither.

    Raises:
        RegistryError: If not.
    """
    try:
        valid_name(alias)
    except ValueError as error:
        raise RegistryError(f"alias {alias[:120]!r}: {error}") from error
    if _NUMBER.fullmatch(alias) or alias.lower() in _RESERVED:
        raise RegistryError(
            f"alias {alias!r} would be taken for a version; it may be no number, and none of {', '.join(_RESERVED)}"
        )
    return alias


def valid_note(note: str) -> str:
    """Return a note if it can be kept whole.

    Raises:
        RegistryError: If it is too long.
    """
    if len(note) > NOTE_LENGTH:
        raise RegistryError(f"a note has at most {NOTE_LENGTH} characters; found {len(note)}")
    return note
