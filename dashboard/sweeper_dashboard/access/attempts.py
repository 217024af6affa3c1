"""Rate limiting of password guesses."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

FREE = 5
"""Wrong passwords before the first wait."""

LONGEST_WAIT_S = 300.0
"""Allows about 100,000 guesses a year, and locks no user out for long because of another's guesses."""

_KEPT = 10_000


class Attempts:
    """Failed sign-ins by name and by address, a limited number in memory; each one lengthens the wait."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait_s(self, *keys: str) -> float:
        """Return the seconds until the next attempt is allowed."""
        return max(0.0, *(self._until(key) - self._clock() for key in keys))

    def began(self, *keys: str) -> None:
        """Count an attempt as failed before it is checked, so that parallel attempts are limited too."""
        for key in keys:
            count, _ = self._wrong.pop(key, (0, 0.0))
            self._wrong[key] = (count + 1, self._clock())
            if len(self._wrong) > _KEPT:
                self._wrong.popitem(last=False)

    def succeeded(self, *keys: str) -> None:
        """Forget the failed attempts."""
        for key in keys:
            self._wrong.pop(key, None)

    def _until(self, key: str) -> float:
        count, last = self._wrong.get(key, (0, 0.0))
        return last + min(2.0 ** min(count - FREE, 16), LONGEST_WAIT_S) if count >= FREE else 0.0
