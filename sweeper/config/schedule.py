"""Optimizer steps and warmup, as the Hugging Face trainer counts them."""

from __future__ import annotations

import math


def steps(train_rows: int, batch_size: int, epochs: float) -> int:
    """Return the number of optimizer steps.

    The last batch of an epoch may be smaller, so an epoch has ``ceil(rows / batch)`` steps; a part of an epoch is
    rounded up to a whole step.

    Raises:
        ValueError: If there are no rows, or a size is not above 0.
    """
    if train_rows < 1 or batch_size < 1 or epochs <= 0:
        raise ValueError(f"rows, batch size and epochs must be above 0; found {train_rows}, {batch_size}, {epochs}")
    return math.ceil(epochs * math.ceil(train_rows / batch_size))


def warmup(total_steps: int, warmup_steps: int | None, warmup_ratio: float | None) -> int:
    """Return the number of warmup steps; a ratio is rounded up. It may exceed ``total_steps``: the caller warns."""
    if warmup_steps is not None:
        return warmup_steps
    return math.ceil(total_steps * (warmup_ratio or 0.0))
