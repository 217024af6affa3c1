"""Tags: words that people give to studies and adapters."""

from __future__ import annotations

from collections.abc import Iterable

from sweeper.errors import UserError

LONGEST = 50
MOST = 20


def valid_tags(tags: Iterable[str]) -> list[str]:
    """Return tags as they are stored: white space at the ends removed, each once, in their order.

    Raises:
        UserError: If one is empty, too long, or holds a comma or anything unprintable; or if there are too many.
    """
    words = list(dict.fromkeys(tag.strip() for tag in tags))
    for word in words:
        if not 0 < len(word) <= LONGEST or "," in word or not word.isprintable():
            raise UserError(f"tag {word[:80]!r}: a tag has 1 to {LONGEST} printable characters and no comma")
    if len(words) > MOST:
        raise UserError(f"{len(words)} tags: at most {MOST} can be given")
    return words
