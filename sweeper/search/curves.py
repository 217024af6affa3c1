"""Reading a trial's learning curve: values by per cent of its training."""

from __future__ import annotations

from collections.abc import Mapping


def percent(progress: float) -> int:
    """Return progress (0 to 1) as the step that Optuna keeps: whole per cent of training, from 1 to 100."""
    return max(1, min(100, round(100 * progress)))


def first_at_or_after(step: int, curve: Mapping[int, float]) -> float | None:
    """Return the value of the first report at or after ``step``; None where there is none yet."""
    later = [reported for reported in curve if reported >= step]
    return curve[min(later)] if later else None
