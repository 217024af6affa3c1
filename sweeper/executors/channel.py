"""A line between two processes of one trial: JSON values, one a line, over a socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

_CHUNK = 1 << 16


class JsonChannel:
    """One end. Whoever holds the other end may die at any instant; that reads as the end of the values."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._received = b""

    def fileno(self) -> int:
        """Return the descriptor, for ``select``."""
        return self._socket.fileno()

    def send(self, value: Any) -> None:
        """Send a value; to nobody, if nobody is there any more."""
        try:
            self._socket.sendall(json.dumps(value).encode() + b"\n")
        except (BrokenPipeError, ConnectionResetError):
            return

    def receive(self) -> list[Any] | None:
        """Wait for something to arrive and return the whole values in it; None at the end."""
        try:
            chunk = self._socket.recv(_CHUNK)
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            return None
        *lines, self._received = (self._received + chunk).split(b"\n")
        return [json.loads(line) for line in lines]

    def values(self) -> Iterator[Any]:
        """Yield what arrives, until the end."""
        while (values := self.receive()) is not None:
            yield from values

    def close(self) -> None:
        """Hang up."""
        self._socket.close()
