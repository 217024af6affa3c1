"""How many slots, and how many tokens in a pass: from the memory that is free."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sweeper.models.facts import ModelFacts
from sweeper.models.memory import Workload, estimate

MOST_SLOTS = 8
"""More at once gains little speed by ``tests/benchmarks/packed_vs_loop.py``, and makes the search blinder."""

_TRIALS_PER_SLOT = 3
"""``auto`` runs at most a third of a study's trials at once: the search learns from those that ended."""


@dataclass
class Plan:
    """Lowered where memory runs out after all, never raised.

    Attributes:
        slots: Most trials at once.
        tokens: Most tokens in a pass.
    """

    slots: int
    tokens: int


def plan(facts: ModelFacts, work: Workload, *, slots: int | None, n_trials: int, free_bytes: int) -> Plan:
    """Return how many slots fit beside the base, and how many tokens all of them may pass at once.

    Every slot costs its adapter, gradient and optimizer whether its rows are in a pass or not; every token costs its
    activations while it is. With the slots there is room for at least one row of each.

    Args:
        facts: The base model, which is in memory already.
        work: The largest trial of the study.
        slots: How many the user asks for; None for ``auto``.
        n_trials: Trials of the study.
        free_bytes: Memory that may be used.
    """
    row = estimate(facts, work, 1)
    a_slot = row.adapter + row.gradients + row.optimizer
    a_row = row.activations + row.logits
    room = free_bytes - row.workspace
    most = slots or min(MOST_SLOTS, math.ceil(n_trials / _TRIALS_PER_SLOT))
    if slots is None:
        most = max(1, min(most, room // (a_slot + a_row)))
    left = max(0, room - most * a_slot)
    return Plan(most, max(1, left // a_row) * work.tokens_per_row)
