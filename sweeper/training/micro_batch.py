"""The micro-batch: how many rows pass through the model at once. Not a hyperparameter: it changes no loss or gradient.

(Rounding apart; and with dropout another micro-batch draws other masks, as another seed would.) The effective batch is
split into micro-batches that fit, and steps the optimizer once. When memory runs out, the micro-batch is halved and the
whole step repeated, so the effective batch stays what the trial asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from sweeper.errors import OutOfMemoryError


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the device or the host ran out of memory."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


class MicroBatch:
    """The number of rows per forward pass, lowered when memory runs out and never raised within a trial.

    It is ``fixed`` for several processes: when one runs out of memory the others are inside a collective, so the step
    cannot be repeated, and the trial restarts with fewer rows.
    """

    def __init__(self, rows: int, *, fixed: bool = False) -> None:
        self.rows = rows
        self.fixed = fixed

    def halve(self, cause: BaseException) -> None:
        """Halve it; OutOfMemoryError if it is 1 already, or fixed."""
        if self.fixed or self.rows == 1:
            rows = "a single row does" if self.rows == 1 else f"{self.rows} rows at a time do"
            raise OutOfMemoryError(f"{rows} not fit in memory: {cause}") from cause
        self.rows //= 2


class WholeBatch:
    """The rows of one optimizer step, uncollated and longest first, which wastes little padding.

    A class, because accelerate would walk through the tokens of a plain list.
    """

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = sorted(rows, key=_length, reverse=True)

    def parts(self, size: int) -> list[list[dict[str, Any]]]:
        """Return the rows in parts of at most ``size``."""
        return [self.rows[start : start + size] for start in range(0, len(self.rows), size)]

    @property
    def tokens(self) -> int:
        """Tokens of all rows, without padding."""
        return sum(len(row["input_ids"]) for row in self.rows)


def _length(row: dict[str, Any]) -> int:
    """Return the tokens of a row, which may hold several sequences."""
    sequences = [row["input_ids"]] if "input_ids" in row else [v for name, v in row.items() if name.endswith("ids")]
    return sum(map(len, sequences))


def answers_at_once(device_type: str) -> int:
    """Return the initial number of prompts to answer at once; only the key-value cache takes memory."""
    return 64 if device_type == "cpu" else 256


def loss_tokens(inputs: dict[str, Any]) -> int:
    """Return how many tokens of collated inputs carry a loss; the first of a row never does."""
    return int((inputs["labels"][..., 1:] != -100).sum())


def until_it_fits(micro_batch: MicroBatch, attempt: Callable[[], Any], undo: Callable[[], None]) -> Any:
    """Run ``attempt``; when memory runs out, ``undo`` it, halve the micro-batch and repeat, down to a single row."""
    state = torch.get_rng_state()
    cuda_state = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    while True:
        try:
            return attempt()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            cause = error.with_traceback(None)  # the traceback holds the tensors that did not fit
        undo()
        torch.set_rng_state(state)
        if cuda_state is not None:
            torch.cuda.empty_cache()
            torch.cuda.set_rng_state_all(cuda_state)
        micro_batch.halve(cause)
