"""Validation of aliases, tags and notes."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sweeper.config.study import valid_name
from sweeper.errors import RegistryError, UserError
from sweeper.store import Stage

NOTE_LENGTH = 4_000
TAG_LENGTH = 50
MOST_TAGS = 20
_NUMBER = re.compile(r"v?\d+", re.IGNORECASE)
_RESERVED = ("latest", *Stage)


def check_name(name: str, what: str = "adapter name") -> None:
    """Refuse a name that is not of the form of a study's.

    Raises:
        RegistryError: With why.
    """
    try:
        valid_name(name)
    except ValueError as error:
        raise RegistryError(f"{what} {name[:120]!r}: {error}") from error


def valid_tags(tags: Iterable[str]) -> list[str]:
    """Return tags as they are stored: stripped, without duplicates, in their order.

    Raises:
        UserError: If one is empty, too long, or holds a comma or an unprintable character; or if there are too many.
    """
    words = list(dict.fromkeys(tag.strip() for tag in tags))
    for word in words:
        if not 0 < len(word) <= TAG_LENGTH or "," in word or not word.isprintable():
            raise UserError(f"tag {word[:80]!r}: a tag has 1 to {TAG_LENGTH} printable characters and no comma")
    if len(words) > MOST_TAGS:
        raise UserError(f"{len(words)} tags: at most {MOST_TAGS} are allowed")
    return words


def valid_alias(alias: str) -> str:
    """Return an alias, unless it would be mistaken for a version's number or stage.

    Raises:
        RegistryError: If not.
    """
    check_name(alias, "alias")
    if _NUMBER.fullmatch(alias) or alias.lower() in _RESERVED:
        raise RegistryError(
            f"alias {alias!r} would be mistaken for a version; it may not be a number, nor {', '.join(_RESERVED)}"
        )
    return alias


def valid_note(note: str) -> str:
    """Return a note, unless it is too long to be kept whole.

    Raises:
        RegistryError: If it is too long.
    """
    if len(note) > NOTE_LENGTH:
        raise RegistryError(f"a note has at most {NOTE_LENGTH} characters; found {len(note)}")
    return note
