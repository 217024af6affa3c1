"""Retention of a study's adapters on disk."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from sweeper.config.base import Frozen

_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B\s*$", re.IGNORECASE)
_POWERS = " KMGT"


def size_bytes(value: Any) -> Any:
    """Return ``5368709120``, ``"5GiB"`` (1024 x 1024 x 1024 each) or ``"5GB"`` (a thousand million each) in bytes.

    Raises:
        ValueError: If the text is no size.
    """
    if not isinstance(value, str):
        return value
    match = _SIZE.match(value)
    if match is None:
        raise ValueError(f"must be a size such as 500MB, 5GiB or 1.5TB; found {value!r}")
    unit = 1024 if match[3] else 1000
    return int(float(match[1]) * unit ** _POWERS.index(match[2].upper() or " "))


def size_text(size: int) -> str:
    """Return a size as people read it, for example ``1.5 GiB``."""
    value, units = float(size), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{size} bytes" if units[0] == "bytes" else f"{value:.1f} {units[0]}"


class KeepConfig(Frozen):
    """What stays of the trials' adapters; everything registered stays anyway, and what the study still needs.

    Attributes:
        best: Adapters of so many of the best configurations, but never fewer than are scored on the test split; with
            several objectives the Pareto front. ``all`` keeps every one.
        quota: Most bytes of the study's adapters and stopped trials, or text such as ``5GiB``. Above it the worst go
            first, down to what the final scoring needs.
    """

    best: Annotated[int, Field(ge=1)] | Literal["all"] = 3
    quota: Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(size_bytes)] = None

    def __str__(self) -> str:
        quota = "" if self.quota is None else f", quota {size_text(self.quota)}"
        return f"best {self.best}{quota}"
