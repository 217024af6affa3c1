"""The contract of all executors."""

from __future__ import annotations

from typing import Protocol

from sweeper.config.trial import TrialSpec
from sweeper.executors.context import StudyContext
from sweeper.training.base_model import BaseModel


class Executor(Protocol):
    """Runs the trials of a study until the search or its budget ends, or the user asks to stop.

    An implementation promises:

    - Every trial that it starts is in the database before its first step, and its result is on disk, then in the
      database, then told to the search, in this order: after a crash at any instant ``reclaim`` finds the rest.
    - A trial's own result depends on its specification alone, not on what ran before it or beside it.
    - A failed trial ends itself and nothing else; faults of the user's making (``UserError``) end the study.
    - When ``stop`` is set it ends the step under way and returns soon after.
    - Trials that an earlier process left frozen are gone on with, or begun again where it cannot do that.
    - Other workers may run trials of the same study at once: it holds each of its trials by a lease, drops one whose
      lease it has lost without a word of it to anyone, and returns only when nobody trains any more.
    """

    def run(self, context: StudyContext) -> None:
        """Run trials until there is none left to run."""

    def base(self, context: StudyContext, spec: TrialSpec) -> BaseModel:
        """Return the base model of a trial, for what is done after the search; the one before may be gone then."""
