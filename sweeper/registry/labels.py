"""What people write on versions: aliases, tags and notes, and what may stand in them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sweeper.config.study import valid_name
from sweeper.errors import RegistryError
from sweeper.store import Stage

TAG_LENGTH = 50
TAGS = 20
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


def valid_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Return tags without those that come twice.

    Raises:
        RegistryError: If one is empty, too long or not printable, or there are too many.
    """
    found = tuple(dict.fromkeys(tag.strip() for tag in tags))
    for tag in found:
        if not 1 <= len(tag) <= TAG_LENGTH or not tag.isprintable():
            raise RegistryError(f"tag {tag[:120]!r} must have 1 to {TAG_LENGTH} printable characters")
    if len(found) > TAGS:
        raise RegistryError(f"a version takes at most {TAGS} tags; found {len(found)}")
    return found


def valid_note(note: str) -> str:
    """Return a note if it can be kept whole.

    Raises:
        RegistryError: If it is too long.
    """
    if len(note) > NOTE_LENGTH:
        raise RegistryError(f"a note has at most {NOTE_LENGTH} characters; found {len(note)}")
    return note
