"""The number of slots, and of tokens in a pass, that fit the free memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sweeper.models.facts import ModelFacts
from sweeper.models.memory import Workload, estimate

MOST_SLOTS = 8
"""More gain little speed by ``tests/benchmarks/packed_vs_loop.py``, and leave the search less to learn from."""

_TRIALS_PER_SLOT = 3
"""``auto`` runs at most a third of a study's trials at once, as the search learns from finished ones."""


@dataclass
class Plan:
    """A plan, lowered if memory runs out after all, never raised.

    Attributes:
        slots: Most trials at once.
        tokens: Most tokens in a pass.
    """

    slots: int
    tokens: int


def plan(facts: ModelFacts, work: Workload, *, slots: int | None, n_trials: int, free_bytes: int) -> Plan:
    """Return how many slots fit beside the base, which is in memory already, and how many tokens a pass may have.

    A slot always costs its adapter, gradient and optimizer; a token in a pass costs its activations. ``work`` is the
    study's largest trial, ``slots`` what the user asks for (None for ``auto``).
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
