"""The processes that train one trial together: their shares of a step, and their collectives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from sweeper.config.trial import Decision
from sweeper.training.micro_batch import WholeBatch

_DECISIONS = tuple(Decision)
IGNORED = -100
"""The label of a token without a loss, as in transformers."""


@dataclass(frozen=True)
class Ranks:
    """This process's ``rank`` among the ``size`` processes of its trial.

    Every rank gets the whole effective batch and takes its share, so data order and number of steps are those of a
    single process. Reports and decisions are the same on all ranks, so none waits for another.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process reports and writes for all."""
        return self.rank == 0

    def parts(self, whole: WholeBatch, most: int, collate: Callable[[Any], dict[str, Any]]) -> list[dict[str, Any]]:
        """Return this rank's share of a batch, collated in parts of at most ``most`` rows: as many on every rank.

        A rank short of rows passes one without a loss, as the model's collectives need all ranks.
        """
        mine = WholeBatch(whole.rows[self.rank :: self.size])
        parts = [collate(part) for part in mine.parts(most)]
        wanted = math.ceil(math.ceil(len(whole.rows) / self.size) / most)
        while len(parts) < wanted:
            last = collate(whole.rows[-1:])
            parts.append({**last, "labels": torch.full_like(last["labels"], IGNORED)})
        return parts

    def total(self, value: float) -> float:
        """Return the sum of a number over all ranks."""
        if self.size == 1:
            return value
        summed = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(summed)
        return float(summed)

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """Return the mean of a scalar over all ranks, on the device it came from."""
        return value if self.size == 1 else torch.full_like(value, self.total(float(value)) / self.size)

    def agree(self, decision: Decision) -> Decision:
        """Return the leading rank's decision."""
        if self.size == 1:
            return decision
        index = torch.tensor(_DECISIONS.index(decision))
        dist.broadcast(index, src=0)
        return _DECISIONS[int(index)]

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Let the leading rank through a ``with`` block alone, then the others."""
        if self.size > 1 and not self.leads:
            dist.barrier()
        yield
        if self.size > 1 and self.leads:
            dist.barrier()
