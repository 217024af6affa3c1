"""The memory of GPUs after a process on them was killed: the driver takes a while to give it back."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

from sweeper.hardware import Gpu, gpus

_LOOK_S = 0.5
"""How often to ask the driver."""

_SLACK_BYTES = 256 << 20
"""How much less may be free than before: what the driver keeps for the processes that are left goes up and down."""


class FreedMemory:
    """What was free on some GPUs before processes were started there.

    Args:
        devices: ``cuda:N``; of ``cpu`` nothing is asked.
        patience_s: How long to wait for the memory to come back.
        look: What lists the GPUs with their free memory.
    """

    def __init__(
        self, devices: Collection[str], patience_s: float = 60.0, look: Callable[[], tuple[Gpu, ...]] = gpus
    ) -> None:
        self._indices = sorted({int(name.partition(":")[2] or 0) for name in devices if name.startswith("cuda")})
        self._patience_s = patience_s
        self._look = look
        self._before = self._free()

    def wait(self) -> str | None:
        """Wait until as much is free again; return what to tell the user where it does not come back in time."""
        begun = time.monotonic()
        while missing := self._missing():
            if time.monotonic() - begun >= self._patience_s:
                return self._complaint(missing)
            time.sleep(_LOOK_S)
        return None

    def is_back(self) -> bool:
        """Tell whether as much is free again, without waiting."""
        return not self._missing()

    def complaint(self) -> str:
        """Return what to tell the user of memory that does not come back in time."""
        return self._complaint(self._missing())

    def _complaint(self, missing: Mapping[int, int]) -> str:
        held = ", ".join(f"{count / (1 << 30):.1f} GiB on cuda:{index}" for index, count in missing.items())
        return f"{held} did not come back in {self._patience_s:g} s: another process has it (see `nvidia-smi`)"

    def _free(self) -> dict[int, int]:
        """Return the free bytes of each GPU whose driver tells them."""
        if not self._indices:
            return {}
        present = self._look()
        known = {index: present[index].free_bytes for index in self._indices if index < len(present)}
        return {index: count for index, count in known.items() if count is not None}

    def _missing(self) -> dict[int, int]:
        now = self._free()
        less = {index: before - now.get(index, before) for index, before in self._before.items()}
        return {index: count for index, count in less.items() if count > _SLACK_BYTES}
