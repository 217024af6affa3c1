"""Guessing is slow: who gives a wrong password must wait, longer each time."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

FREE = 5
"""Wrong passwords before the first wait."""

LONGEST_WAIT_S = 300.0
"""Long enough that a year allows about 100,000 guesses, short enough that nobody is locked out by another's."""

_KEPT = 10_000


class Attempts:
    """Wrong passwords by name and by address; in memory only, and no more of them than a server can keep."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait_s(self, *keys: str) -> float:
        """Return how long these must wait before they may try again."""
        return max(0.0, *(self._until(key) - self._clock() for key in keys))

    def began(self, *keys: str) -> None:
        """Count an attempt as wrong before it is looked at, so that many at once do not all get through."""
        for key in keys:
            count, _ = self._wrong.pop(key, (0, 0.0))
            self._wrong[key] = (count + 1, self._clock())
            if len(self._wrong) > _KEPT:
                self._wrong.popitem(last=False)

    def succeeded(self, *keys: str) -> None:
        """Forget what these had wrong."""
        for key in keys:
            self._wrong.pop(key, None)

    def _until(self, key: str) -> float:
        count, last = self._wrong.get(key, (0, 0.0))
        return last + min(2.0 ** min(count - FREE, 16), LONGEST_WAIT_S) if count >= FREE else 0.0
