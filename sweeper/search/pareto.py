"""The Pareto front: what no other is better than in every objective. Imports no Optuna."""

from __future__ import annotations

from collections.abc import Mapping

Losses = tuple[float, ...]
"""A trial's objectives, all to be small."""


def front(losses: Mapping[int, Losses]) -> list[int]:
    """Return the numbers of the trials that no other dominates, by their first objective."""
    kept = [number for number, own in losses.items() if not any(_dominates(other, own) for other in losses.values())]
    return sorted(kept, key=lambda number: (losses[number], number))


def _dominates(one: Losses, other: Losses) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
