"""``python -m sweeper.executors.distributed.rank``: one process of a trial that has processes of its own.

It is given an end of a ``JsonChannel``, on which its job comes in, and reports and its result go out. Nothing heavy is
imported at the top: Unsloth patches transformers, and has to be imported before it.
"""

from __future__ import annotations

import faulthandler
import math
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sweeper.config.base import Frozen
from sweeper.config.trial import Decision, TrialResult, TrialSpec
from sweeper.errors import UserError
from sweeper.executors.channel import JsonChannel
from sweeper.paths import cache_folder

if TYPE_CHECKING:
    from sweeper.training.ranks import Ranks

_WORD_S = 1.0
"""How often at most to say that something goes forward."""


class Job(Frozen):
    """What a process is told.

    Attributes:
        spec: The trial.
        rank: Of this process among those of the trial.
        size: How many they are.
        port: Of the store through which they find each other.
        rows: Rows per forward pass to begin with.
        checkpoint_s: Seconds between two checkpoints; None where the trial is not kept on disk.
        resume: Whether to resume from its checkpoint.
    """

    spec: TrialSpec
    rank: int
    size: int
    port: int
    rows: int
    checkpoint_s: float | None = None
    resume: bool = False


class Parent:
    """The process that runs the study, as its worker sees it. Without it the worker ends at once."""

    def __init__(self, line: JsonChannel) -> None:
        self._channel = line
        self._values: queue.Queue[Any] = queue.Queue()
        self._told = -math.inf
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for value in self._channel.values():
            self._values.put(value)
        # With all that it started: a collective that waits for a dead rank listens to nothing less.
        os.killpg(os.getpgid(0), signal.SIGKILL)

    def job(self) -> Job:
        """Wait for the job."""
        return Job.model_validate(self._values.get())

    def report(self, step: int, metrics: Mapping[str, float]) -> Decision:
        """Pass a report on, and wait for the decision."""
        self._channel.send({"report": [step, dict(metrics)]})
        return self.answer()

    def answer(self) -> Decision:
        """Wait for what is decided about the last report, or for word that it takes longer."""
        return Decision(self._values.get())

    def keep_alive(self, *_: Any) -> None:
        """Say that something goes forward, though no step ends; seldom enough to be no burden."""
        if time.monotonic() - self._told >= _WORD_S:
            self._told = time.monotonic()
            self._channel.send({"alive": True})

    def before_checkpoint(self) -> None:
        """Let the process that runs the study record what was reported, before a checkpoint says that it was."""
        self._channel.send({"checkpoint": True})
        self._values.get()

    def end(self, result: TrialResult) -> None:
        """Send how the trial ended here."""
        self._channel.send({"result": result.model_dump(mode="json")})

    def fault(self, error: UserError) -> None:
        """Send what the user has to mend."""
        self._channel.send({"fault": [type(error).__name__, str(error)]})


def main() -> None:
    """Train one trial together with its other processes; asked by a signal, say in the log what each thread does."""
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    parent = Parent(JsonChannel(socket.socket(fileno=int(sys.argv[1]))))
    try:
        parent.end(train(parent.job(), parent))
    except UserError as error:
        parent.fault(error)


def train(job: Job, parent: Parent) -> TrialResult:
    """Load the base model as the backend wants it, and train the trial on it."""
    if job.spec.backend.kind == "unsloth":
        # What it compiles would otherwise be written into the current folder.
        os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(cache_folder() / "unsloth"))
        import unsloth  # noqa: F401  (before transformers, which it patches)

    from sweeper.evaluation.scorer import task_metric
    from sweeper.training.backends.table import load
    from sweeper.training.ranks import Ranks
    from sweeper.training.resumable_trainer import CheckpointPolicy
    from sweeper.training.trial import train_trial

    parent.keep_alive()
    ranks, spec = Ranks(job.rank, job.size), job.spec
    base = load(spec, ranks, job.port)
    evaluate = task_metric(
        base, spec.validation, spec.evaluation, spec.technique, spec.reward_sources, on_progress=parent.keep_alive
    )
    checkpoints = None if job.checkpoint_s is None else CheckpointPolicy(job.checkpoint_s, parent.before_checkpoint)
    report = _Together(ranks, parent)
    return train_trial(spec, base, report, job.rows, evaluate, checkpoints=checkpoints, resume=job.resume)


class _Together:
    """A ``report`` that the leading rank makes, and whose decision all ranks get in the same step.

    Where a study is paused the answer takes as long as people like. The other ranks wait for it in a collective, which
    fails after some minutes; so they all are told now and then to go on waiting.
    """

    def __init__(self, ranks: Ranks, parent: Parent) -> None:
        self._ranks = ranks
        self._parent = parent

    def __call__(self, step: int, metrics: Mapping[str, float]) -> Decision:
        leads = self._ranks.leads
        decision = self._ranks.agree(self._parent.report(step, metrics) if leads else Decision.CONTINUE)
        while decision is Decision.WAIT:
            decision = self._ranks.agree(self._parent.answer() if leads else Decision.CONTINUE)
        return decision


if __name__ == "__main__":
    main()
