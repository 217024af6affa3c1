"""Checks of a study without training it, one section per topic; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Section:
    """The findings on one topic: lines and warnings for people, figures as plain data for programs."""

    title: str
    lines: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
