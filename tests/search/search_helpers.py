from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter

from sweeper.config.space import Space
from sweeper.config.trial import Outcome, TrialResult
from sweeper.search.study import Candidate, Search

POINTS = 3


def make_space(**ranges: Any) -> Space:
    return TypeAdapter(Space).validate_python(ranges)


MIXED = make_space(
    learning_rate={"low": 1e-5, "high": 1e-3, "log": True},
    batch_size={"low": 4, "high": 32, "step": 4},
    lora_rank=[8, 16, 32],
    target_modules=[["q_proj", "v_proj"], "all-linear"],
    epochs=2,
)


def result(number: int, outcome: Outcome = Outcome.COMPLETE, value: float | None = None, **more: Any) -> TrialResult:
    return TrialResult(number=number, outcome=outcome, value=value, started_at="", finished_at="", **more)


def loss(candidate: Candidate) -> float:
    """A smooth loss with a little luck that follows from the trial's seed."""
    rate = float(candidate.parameters["learning_rate"])  # type: ignore[arg-type]
    return 1 + (math.log10(rate) + 3.6) ** 2 + candidate.seed / 2**31 * 0.01


def run_one(search: Search, candidate: Candidate) -> Outcome:
    """Run one trial as an executor would, and return how it ended."""
    value = loss(candidate)
    for k in range(1, POINTS + 1):
        decision = search.report(candidate.number, k / POINTS, value + 1 - k / POINTS)
        if decision is not None and decision.pruned and k < POINTS:
            search.tell(candidate.number, result(candidate.number, Outcome.PRUNED, epochs_trained=2 * k / POINTS))
            return Outcome.PRUNED
    search.tell(candidate.number, result(candidate.number, value=value, epochs_trained=2.0))
    return Outcome.COMPLETE


def run_all(search: Search, most: int = 1000) -> list[tuple[Candidate, Outcome]]:
    done = []
    while len(done) < most and (candidate := search.ask()) is not None:
        done.append((candidate, run_one(search, candidate)))
    return done


Make = Callable[..., Search]
