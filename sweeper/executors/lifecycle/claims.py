"""Claims of a study's workers on its trials; workers choose one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable

from sweeper.config.trial import Outcome
from sweeper.errors import StudyStateError
from sweeper.executors.context import StudyContext
from sweeper.search.candidate import Candidate

_GLANCE_S = 0.5
"""How often a worker that has nothing to do looks whether the others have left it something."""


def claim(context: StudyContext, choose: Callable[[], Candidate | None]) -> Candidate | None:
    """Let this worker choose a trial while no other does, hold it from then on, and return it."""
    with context.alone():
        candidate = choose()
        if candidate is not None:
            context.database.leases.take(context.config.name, candidate.number, context.membership.token)
        return candidate


def ask(context: StudyContext, spent: float = 0.0) -> Candidate | None:
    """Return the trial to run next, held by this worker; None where there is none for now. See ``Search.ask``."""
    return claim(context, lambda: context.search.ask(spent))


def take_up(context: StudyContext, number: int) -> Candidate:
    """Take over a trial that nobody runs, hold it, and return what it runs."""
    candidate = claim(context, lambda: context.search.take_up(number))
    assert candidate is not None
    return candidate


def stopped(context: StudyContext) -> list[int]:
    """Return the trials that wait on disk to go on, and that nobody runs; the oldest first.

    One whose worker has died is not among them before it was put in order, see ``reclaim``.
    """
    elsewhere, paused = context.membership.elsewhere(), context.search.paused()
    waiting = [number for number in context.search.interrupted() if number not in elsewhere and number not in paused]
    outcomes = {number: _outcome(context, number) for number in waiting}
    return [number for number, outcome in outcomes.items() if outcome is not None and outcome.is_open]


def abandoned(context: StudyContext) -> bool:
    """Tell whether there are trials that began, and that nobody holds: their worker ended as it took or ran them."""
    with context.alone():
        elsewhere, paused = context.membership.elsewhere(), context.search.paused()
        running = [
            number for number in context.search.interrupted() if number not in elsewhere and number not in paused
        ]
        return any(_outcome(context, number) is None for number in running)


def _outcome(context: StudyContext, number: int) -> Outcome | None:
    """Return how a trial has ended so far; None where it has not, or was never recorded."""
    try:
        return context.database.trials.get(context.config.name, number).outcome
    except StudyStateError:
        return None


def others_train(context: StudyContext) -> bool:
    """Tell whether other workers hold trials: what they make of them may leave this one more to do.

    To be asked before this worker looks for a trial in vain: then it is known that there is none.
    """
    return bool(context.membership.elsewhere())


def wait() -> None:
    """Let the others work for a moment."""
    time.sleep(_GLANCE_S)
