"""Listeners to a running study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a worker listens before it has loaded anything large
    from sweeper.config.study import StudyConfig
    from sweeper.config.trial import TrialResult, TrialSpec
    from sweeper.search.candidate import Candidate


class Listener:
    """Hears of the progress of a study and shows nothing of it; subclasses do.

    Every method is called from the thread that runs the study.
    """

    def stage(self, text: str, fraction: float | None = None) -> None:
        """A long step began or moved on; ``fraction`` is 0 to 1, None where it is not known."""

    def trial_started(self, candidate: Candidate, spec: TrialSpec, total_steps: int) -> None:
        """A trial begins, planned to take ``total_steps`` optimizer steps."""

    def trial_reported(self, number: int, step: int, metrics: Mapping[str, float]) -> None:
        """A trial took a step or was evaluated."""

    def trial_ended(self, result: TrialResult) -> None:
        """A trial ended, and its result is in the database."""

    def trial_left(self, number: int) -> None:
        """A trial was reassigned to another worker."""

    def note(self, text: str) -> None:
        """Something the user should know."""

    def budget_changed(self, config: StudyConfig) -> None:
        """The study goes on with another budget."""
