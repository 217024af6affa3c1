"""Listeners to a running study."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from sweeper.errors import SweeperError

if TYPE_CHECKING:  # a worker listens before it has loaded anything large
    from sweeper.config.study import StudyConfig
    from sweeper.config.trial import TrialResult, TrialSpec
    from sweeper.search.candidate import Candidate

log = logging.getLogger(__name__)


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


class GuardedListener:
    """Another listener, whose own errors are logged and cost the study nothing."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._listener, name)

        def call(*arguments: Any, **named: Any) -> None:
            try:
                method(*arguments, **named)
            except SweeperError:
                raise
            except Exception:
                log.exception("whoever watches the study failed in %s; the study continues", name)

        return call


def guarded(listener: Listener | None) -> Listener:
    """Return a listener that cannot end the study it watches; None stands for nobody."""
    return Listener() if listener is None else cast(Listener, GuardedListener(listener))
