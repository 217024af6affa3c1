"""Evaluations of trials under way on one base model, taken in the same passes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from sweeper.evaluation.scorer import task_metric
from sweeper.executors.context import StudyContext
from sweeper.executors.packed.capacity import PackCapacity
from sweeper.executors.packed.running import Running, share
from sweeper.packing.adapter import SlotAdapter
from sweeper.packing.batch import TokenisedRow
from sweeper.packing.engine import Engine
from sweeper.training.micro_batch import is_out_of_memory
from sweeper.training.reporting import perplexity, require_finite


class Evaluating:
    """Measures trials on the validation split.

    Args:
        context: The study.
        engine: Takes rows of all trials through the base model.
        room: How many tokens a pass may have.
        fail: Ends a trial whose evaluation went wrong.
    """

    def __init__(
        self, context: StudyContext, engine: Engine, room: PackCapacity, fail: Callable[[Running, Exception], None]
    ) -> None:
        self._context = context
        self._engine = engine
        self._room = room
        self._fail = fail
        self._evaluate_text = task_metric(
            engine.base,
            context.data.validation,
            context.config.evaluation,
            context.config.technique,
            on_progress=lambda done, total: context.keep_alive(),
        )

    def measure(self, trials: Iterable[Running]) -> list[tuple[Running, dict[str, float]]]:
        """Evaluate every trial that has come to an evaluation; those that end over it are not among the answers."""
        groups: dict[int, list[Running]] = {}
        for running in trials:
            if running.slot.is_due:  # the rows are one object for all trials that have the same
                groups.setdefault(id(running.slot.validation), []).append(running)
        return [one for due in groups.values() for one in self._measure_together(due)]

    def _measure_together(self, due: Sequence[Running]) -> list[tuple[Running, dict[str, float]]]:
        """Evaluate trials with the same validation rows in the same passes; where that fails, each alone."""
        begun = time.monotonic()
        try:
            losses = self._mean_losses([running.slot.adapter for running in due], list(due[0].slot.validation))
        except Exception as error:
            if len(due) > 1:
                return [one for running in due for one in self._measure_together([running])]
            self._fail(due[0], error)
            return []
        share(due, [1] * len(due), time.monotonic() - begun)
        measured = [(running, self._measure(running, loss)) for running, loss in zip(due, losses, strict=True)]
        return [(running, metrics) for running, metrics in measured if metrics is not None]

    def _mean_losses(self, adapters: Sequence[SlotAdapter], rows: Sequence[TokenisedRow]) -> list[float]:
        tokens = self._room.tokens
        while True:
            try:
                return self._engine.mean_losses(adapters, rows, tokens, on_pass=self._context.keep_alive)
            except Exception as error:
                if not is_out_of_memory(error) or tokens == 1:
                    raise
            self._room.release()
            tokens = max(1, tokens // 2)

    def _measure(self, running: Running, loss: float) -> dict[str, float] | None:
        """Return all metrics of an evaluation, or None where the trial has ended over it."""
        slot, begun = running.slot, time.monotonic()
        try:
            metrics = {"eval_loss": loss, "perplexity": perplexity(loss)}
            require_finite(metrics, slot.progress.steps)  # no text is generated with weights that are no numbers
            if self._evaluate_text is not None:
                with self._engine.alone(slot.adapter) as model:
                    metrics |= self._evaluate_text(model)
            slot.offer(metrics)
        except Exception as error:
            self._fail(running, error)
            return None
        slot.progress.seconds += time.monotonic() - begun
        return metrics
