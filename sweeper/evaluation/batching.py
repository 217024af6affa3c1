"""Batches of similar length, halved when memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from sweeper.errors import OutOfMemoryError
from sweeper.training.micro_batch import is_out_of_memory

logger = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]
"""Called with the number of items done and their total."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_in_batches(
    items: Sequence[Item],
    length: Callable[[Item], int],
    batch_size: int,
    run: Callable[[list[Item]], list[Result]],
    on_progress: OnProgress | None = None,
) -> list[Result]:
    """Apply ``run`` to all items, longest first, and return its results in the order of the items.

    Items of similar length share a batch, which wastes little on padding; the longest come first, so a batch that does
    not fit fails at once. When memory runs out the batch size is halved, for this batch and all that follow.

    Raises:
        OutOfMemoryError: If a single item does not fit.
    """
    order = sorted(range(len(items)), key=lambda index: length(items[index]), reverse=True)
    results: dict[int, Result] = {}
    while len(results) < len(order):
        batch = order[len(results) : len(results) + batch_size]
        try:
            outputs = run([items[index] for index in batch])
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            batch_size = _half(len(batch), length(items[batch[0]]))
        else:
            results.update(zip(batch, outputs, strict=True))
            if on_progress is not None:
                on_progress(len(results), len(items))
            continue
        _release_memory()
    return [results[index] for index in range(len(items))]


def _half(rows: int, tokens: int) -> int:
    if rows == 1:
        raise OutOfMemoryError(
            f"a single row of {tokens} tokens does not fit in memory; shorten the rows, lower "
            "evaluation.max_new_tokens, or use a device with more memory"
        )
    logger.warning("a batch of %d rows does not fit in memory; continuing with %d", rows, rows // 2)
    return rows // 2


def _release_memory() -> None:
    """Give cached blocks back, once the frames that held the batch are gone."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def part_of(on_progress: OnProgress | None, offset: int, total: int) -> OnProgress | None:
    """Return progress on a part of the work as progress on the whole."""
    if on_progress is None:
        return None
    return lambda done, _: on_progress(offset + done, total)
