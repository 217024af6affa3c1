"""A trial under way among others: its slot, and what it reports to."""

from __future__ import annotations

from collections.abc import Sequence

from sweeper.config.trial import Decision
from sweeper.executors.lifecycle.recorder import Recorder
from sweeper.packing.slot import Slot


class Running:
    """A slot and what it reports to.

    Args:
        slot: The trial.
        recorder: What it reports to.
        planned: Rows per forward pass that it was begun with.
    """

    def __init__(self, slot: Slot, recorder: Recorder, planned: int) -> None:
        self.slot = slot
        self.recorder = recorder
        self.planned_micro_batch = planned

    def announce(self, metrics: dict[str, float]) -> None:
        """Let the search know an evaluation before this trial, or one evaluated with it, is judged."""
        self.recorder.announce(self._with_progress(metrics))

    def report(self, metrics: dict[str, float]) -> Decision:
        """Report a step or an evaluation, and return what is decided."""
        return self.recorder(self.slot.progress.steps, self._with_progress(metrics))

    def _with_progress(self, metrics: dict[str, float]) -> dict[str, float]:
        progress = self.slot.progress
        return {**metrics, "progress": progress.steps / progress.total_steps}


def share(group: Sequence[Running], parts: Sequence[int], seconds: float) -> None:
    """Charge every trial its part of the time."""
    for running, own in zip(group, parts, strict=True):
        running.slot.progress.seconds += seconds * own / sum(parts)
