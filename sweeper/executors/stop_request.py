"""The request to stop, in a room of its own: who only has to hear one imports no torch."""

from __future__ import annotations

import threading


class StopRequest:
    """Set when the user asks to stop: the step under way ends, then the trial, then the study."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Ask to stop; safe in a signal handler."""
        self._event.set()

    @property
    def is_set(self) -> bool:
        """Whether the user has asked."""
        return self._event.is_set()
