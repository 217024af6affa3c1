"""The arithmetic of successive halving and Hyperband: rungs, brackets, and how many trials continue. No Optuna."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import takewhile
from typing import assert_never

from sweeper.config import search as config
from sweeper.search.curves import percent


class Halving:
    """Successive halving: at each rung one in ``eta`` continues.

    Args:
        eta: One in so many continues.
        start: The first rung, as a fraction of the training; the others are eta times the one before.
    """

    def __init__(self, eta: int, start: float) -> None:
        self.eta = eta
        self.rungs = tuple(takewhile(lambda rung: rung < 100, (percent(start * eta**k) for k in range(100))))

    def continuing(self, rivals: int) -> int:
        """Return how many of a trial and its rivals continue; at least one, so the first to arrive does."""
        return max(1, (rivals + 1) // self.eta)

    def is_weak(self, value: float, rivals: Sequence[float]) -> bool:
        """Return whether ``value`` (smaller is better) is not among the best 1/eta of itself and its rivals."""
        if math.isnan(value):
            return True
        return sum(rival < value for rival in rivals) >= self.continuing(len(rivals))


class Brackets:
    """Hyperband's brackets: each is a ``Halving`` with another first rung; the last one prunes nothing.

    A bracket's first rung is at 1/eta, 1/eta**2, ... of the training, but not before a tenth of it. Trials fall into
    brackets by their seeds, in the proportions of the paper (Li et al. 2018, arXiv:1603.06560).
    """

    def __init__(self, eta: int) -> None:
        deepest = int(math.log(10, eta))
        self.halvings = [Halving(eta, eta**-s) for s in range(deepest, 0, -1)] + [Halving(eta, 1.0)]
        self._shares = [math.ceil((deepest + 1) * eta**s / (s + 1)) for s in range(deepest, -1, -1)]

    def place(self, seed: int) -> int:
        """Return the index of the bracket of a trial with this seed; 0 prunes earliest."""
        place = seed % sum(self._shares)
        for index, share in enumerate(self._shares):
            place -= share
            if place < 0:
                return index
        raise AssertionError("the shares add up to their sum")


def automatic() -> Halving:
    """Return what ``pruner: auto`` stands for (measured in ``tests/benchmarks/search.py``)."""
    return Halving(eta=2, start=1 / 3)


def halving_of(pruner: config.Pruner, seed: int) -> Halving | None:
    """Return the rungs that a pruner of a study file sets for a trial with this seed; None where it has none."""
    match pruner:
        case config.AutoPruner():
            return automatic()
        case config.HalvingPruner():
            return Halving(pruner.eta, pruner.start)
        case config.HyperbandPruner():
            brackets = Brackets(pruner.eta)
            return brackets.halvings[brackets.place(seed)]
        case (
            config.MedianPruner()
            | config.PercentilePruner()
            | config.PatientPruner()
            | config.ThresholdPruner()
            | config.WilcoxonPruner()
            | config.NoPruner()
        ):
            return None
        case _:
            assert_never(pruner)
