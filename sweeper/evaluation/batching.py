"""Work through items in batches of like length, smaller ones where memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from sweeper.errors import OutOfMemoryError

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with the number of items done and their total."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_in_batches(
    items: Sequence[Item],
    length: Callable[[Item], int],
    batch_size: int,
    run: Callable[[list[Item]], list[Result]],
    on_progress: Progress | None = None,
) -> list[Result]:
    """Apply ``run`` to all items, longest first, and return its results in the order of the items.

    Items of like length share a batch, so that little is spent on padding; the longest come first, so that a batch
    that does not fit shows at once. Where memory runs out the batch is halved, for this batch and all that follow.

    Args:
        items: What to work on.
        length: Tokens of an item.
        batch_size: Most items in a batch.
        run: Takes a batch and returns one result per item.
        on_progress: Told after every batch.

    Raises:
        OutOfMemoryError: If a single item does not fit.
    """
    order = sorted(range(len(items)), key=lambda index: length(items[index]), reverse=True)
    results: dict[int, Result] = {}
    while len(results) < len(order):
        batch = order[len(results) : len(results) + batch_size]
        try:
            outputs = run([items[index] for index in batch])
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            batch_size = _half(len(batch), length(items[batch[0]]))
        else:
            results.update(zip(batch, outputs, strict=True))
            if on_progress is not None:
                on_progress(len(results), len(items))
            continue
        _release_memory()
    return [results[index] for index in range(len(items))]


def out_of_memory(error: RuntimeError) -> bool:
    """Tell whether an error means that memory ran out, on an accelerator or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _half(rows: int, tokens: int) -> int:
    if rows == 1:
        raise OutOfMemoryError(
            f"a single row of {tokens} tokens does not fit in memory; shorten the rows, lower "
            "evaluation.max_new_tokens, or use a device with more memory"
        )
    logger.warning("a batch of %d rows does not fit in memory; going on with %d", rows, rows // 2)
    return rows // 2


def _release_memory() -> None:
    """Give cached blocks back, once the frames that held the batch are gone."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
