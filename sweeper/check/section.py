"""One part of a check's answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Section:
    """What was found about one question.

    Attributes:
        title: One word.
        lines: For people.
        warnings: What may be wrong but stops nothing.
        figures: The same as plain data, for programs.
    """

    title: str
    lines: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
