"""``python -m sweeper.study.worker``: one worker of a study, started by an executor that has several.

It is given an end of a ``JsonChannel``, on which its job and a request to stop arrive. It reports only that it
lives, what it notes, and what the user has to mend. Its trials are in the database.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

from sweeper.errors import StudyInterrupted, UserError
from sweeper.executors.channel import JsonChannel
from sweeper.executors.listener import Listener
from sweeper.executors.stop_request import StopRequest
from sweeper.executors.workers.process import STOPPED, WorkerJob
from sweeper.paths import Home

if TYPE_CHECKING:
    from sweeper.config.trial import TrialResult, TrialSpec
    from sweeper.search.candidate import Candidate

_BEAT_S = 1.0
"""A step is told at most this often: whoever listens only wants to know that there are any."""

_TERMINATED = 128 + signal.SIGTERM


class WorkerListener(Listener):
    """Passes on what the process that started this one has to know."""

    def __init__(self, line: JsonChannel) -> None:
        self._line = line
        self._beaten = 0.0

    def stage(self, text: str, fraction: float | None = None) -> None:
        """Say that something takes longer."""
        self._line.send({"loads": text})

    def trial_started(self, candidate: Candidate, spec: TrialSpec, total_steps: int) -> None:
        """Say that a trial runs here."""
        self._line.send({"began": candidate.number})

    def trial_reported(self, number: int, step: int, metrics: Mapping[str, float]) -> None:
        """Say that there are steps."""
        if time.monotonic() - self._beaten >= _BEAT_S:
            self._beaten = time.monotonic()
            self._line.send({"beat": number})

    def trial_ended(self, result: TrialResult) -> None:
        """Say that a trial has ended here."""
        self._line.send({"ended": result.number})

    def trial_left(self, number: int) -> None:
        """Say that a trial runs here no more."""
        self._line.send({"left": number})

    def note(self, text: str) -> None:
        """Pass it on."""
        self._line.send({"note": text})


def listen(line: JsonChannel, stop: StopRequest) -> WorkerJob:
    """Return the job, and hear from then on what whoever sent it says; without them this process ends at once."""
    jobs: queue.Queue[Any] = queue.Queue()

    def hear() -> None:
        for value in line.values():
            if "stop" in value:
                stop.set()
            else:
                jobs.put(value)
        os.killpg(os.getpgid(0), signal.SIGKILL)  # with all that it started

    threading.Thread(target=hear, name="sweeper-line", daemon=True).start()
    return WorkerJob.model_validate(jobs.get())


def main() -> None:
    """Run trials of one study until there are none left, or whoever started this process asks to stop."""
    line = JsonChannel(socket.socket(fileno=int(sys.argv[1])))
    sys.exit(serve(line))


def serve(line: JsonChannel) -> int:
    """Do the job that comes in on a line, and return the exit code."""
    stop, terminated = StopRequest(), threading.Event()

    def leave(number: int, frame: FrameType | None) -> None:
        terminated.set()  # this one alone: the machine wants it gone, not the user
        stop.set()

    signal.signal(signal.SIGTERM, leave)
    job = listen(line, stop)
    try:
        work(job, WorkerListener(line), stop)
    except StudyInterrupted:
        return _TERMINATED if terminated.is_set() else STOPPED
    except UserError as error:
        line.send({"fault": [type(error).__name__, str(error)]})
        return error.exit_code
    return 0


def work(job: WorkerJob, listener: WorkerListener, stop: StopRequest) -> None:
    """Join the study and run its trials."""
    from sweeper.executors.artifact_store import NoArtifactStore, ObjectStore
    from sweeper.study import run
    from sweeper.study.node_home import prepare_home

    home, artifact_store = Home(job.home), NoArtifactStore() if job.artifacts is None else ObjectStore(job.artifacts)
    if isinstance(artifact_store, ObjectStore):
        prepare_home(job, home, artifact_store, listener)
    run.work(
        job.study,
        home=home,
        device=job.device,
        n_workers=job.n_workers,
        artifact_store=artifact_store,
        listener=listener,
        stop=stop,
    )


if __name__ == "__main__":
    main()
