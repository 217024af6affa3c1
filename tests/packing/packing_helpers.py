"""What the tests of packing share."""

from __future__ import annotations

from typing import Any


def run(engine: Any, slots: list[Any], steps: int | None = None) -> dict[int, list[dict[str, float]]]:
    """Let slots share passes until each has ended, or taken so many steps; return what each reported."""
    told: dict[int, list[dict[str, float]]] = {slot.number: [] for slot in slots}

    def goes_on(slot: Any) -> bool:
        return not slot.has_ended and (steps is None or len(told[slot.number]) < steps)

    while any(map(goes_on, slots)):
        active = [slot for slot in slots if goes_on(slot)]
        losses = engine.train([slot.part() for slot in active], [slot.items for slot in active])
        for slot, loss in zip(active, losses, strict=True):
            report = slot.take(loss)
            if report is not None:
                told[slot.number].append(report)
    return told
