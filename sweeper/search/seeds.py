"""Seeds that follow from the study's seed, so that a search can be run again or resumed."""

from __future__ import annotations

import random


def derive_seed(seed: int, purpose: str, kind: str, ordinal: int) -> int:
    """Return a seed in [0, 2**31) for one purpose of the ``ordinal``-th trial of a kind; the same on every machine."""
    return random.Random(f"{seed}:{purpose}:{kind}:{ordinal}").getrandbits(31)
