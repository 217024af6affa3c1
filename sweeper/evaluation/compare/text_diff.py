"""Differences between two texts, word by word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from html import escape
from typing import Literal

from sweeper.evaluation.report import visible

Kind = Literal["same", "only here", "only there"]

LEGEND = "underlined: only in this text; struck through: only in the reference's"

_PIECES = re.compile(r"\s+|\w+|[^\w\s]")
_MOST_PAIRS = 4_000_000
"""Pairs of words; comparing more would take seconds, so the middle is then marked as a whole."""


@dataclass(frozen=True)
class Mark:
    """A stretch of text: in both, only here, or only there."""

    kind: Kind
    text: str


def marks(here: str, there: str) -> tuple[Mark, ...]:
    """Return ``here`` compared with ``there``: common, added and missing stretches."""
    mine, theirs = _PIECES.findall(here), _PIECES.findall(there)
    start = _common(mine, theirs)
    end = _common(mine[start:][::-1], theirs[start:][::-1])
    middle_mine, middle_theirs = mine[start : len(mine) - end], theirs[start : len(theirs) - end]
    found = [
        Mark("same", "".join(mine[:start])),
        *_middle(middle_mine, middle_theirs),
        Mark("same", "".join(mine[len(mine) - end :])),
    ]
    return tuple(mark for mark in found if mark.text)


def marked_html(here: str, there: str) -> str:
    """Return ``here`` as HTML, its differences to ``there`` in ``ins`` and ``del``; all text is escaped."""
    tags = {"same": "{}", "only here": "<ins>{}</ins>", "only there": "<del>{}</del>"}
    return "".join(tags[mark.kind].format(plain_html(mark.text)) for mark in marks(here, there))


def plain_html(text: str) -> str:
    """Return text escaped for HTML, control characters made visible; line ends stay."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(escape(visible(line)) for line in lines)


def _middle(mine: Sequence[str], theirs: Sequence[str]) -> list[Mark]:
    if len(mine) * len(theirs) > _MOST_PAIRS:
        return [Mark("only there", "".join(theirs)), Mark("only here", "".join(mine))]
    found: list[Mark] = []
    for tag, a, b, c, d in SequenceMatcher(None, theirs, mine, autojunk=False).get_opcodes():
        if tag == "equal":
            found.append(Mark("same", "".join(mine[c:d])))
        else:
            found += [Mark("only there", "".join(theirs[a:b])), Mark("only here", "".join(mine[c:d]))]
    return found


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    """Return how many items two sequences begin with alike."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count
