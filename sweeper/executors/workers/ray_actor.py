"""A worker on a node of a Ray cluster: an actor that keeps a worker process beside it. Imports no torch.

The worker is a process of its own, so that whatever breaks it leaves the actor to tell of it, and so that it can be
ended with all it started. It ends with the actor, which ends with the study or with its node.
"""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sweeper.config.base import Frozen
from sweeper.errors import DatabaseError, HardwareError, UserError
from sweeper.executors.workers.process import WorkerJob, WorkerProcess, WorkerStatus
from sweeper.hardware import Gpu, gpus
from sweeper.machine import this_host
from sweeper.paths import Home, cache_folder

_FREED_S = 60.0
_LOOK_S = 1.0


class NodeJob(Frozen):
    """What a node is told.

    Attributes:
        worker: What the worker is told.
        log: Name of its log among those of the study.
        word: What stands in the file that shows whether the home is the same folder here; None where it need not be.
        host: The machine that the study must not leave, since its database is a file; None where it may.
    """

    worker: WorkerJob
    log: str
    word: str | None
    host: str | None


class NodeWorker:
    """The actor."""

    def __init__(self, job: dict[str, Any]) -> None:
        asked = at_home(NodeJob.model_validate(job))
        self._fault: UserError | None = obstacle(asked)
        self._process: WorkerProcess | None = None
        if self._fault is None:
            environment = {}  # Ray has set what it may see
            if asked.worker.device == "cpu":
                environment["CUDA_VISIBLE_DEVICES"] = ""
            else:
                wait_for_memory()
            log = Home(asked.worker.home).study(asked.worker.study).worker_log(asked.log)
            self._process = WorkerProcess(asked.worker, log, environment)

    def pulse(self) -> dict[str, Any]:
        """Return what is known of the worker."""
        if self._process is None:
            assert self._fault is not None
            fault = (type(self._fault).__name__, str(self._fault))
            return WorkerStatus(exit_code=self._fault.exit_code, fault=fault).model_dump(mode="json")
        return self._process.pulse().model_dump(mode="json")

    def where(self) -> str:
        """Return the name of the node."""
        return socket.gethostname()

    def ask_to_stop(self) -> None:
        """Ask the worker to put its trials on disk and leave."""
        if self._process is not None:
            self._process.ask_to_stop()

    def end(self) -> None:
        """End the worker with all that it started."""
        if self._process is not None:
            self._process.end()


def at_home(job: NodeJob) -> NodeJob:
    """Return a job as this node does it: with a home of the node's own, where it has to fetch the study's files."""
    if job.worker.artifacts is None:
        return job
    known_as = hashlib.sha256(f"{job.worker.artifacts} {job.worker.home}".encode()).hexdigest()[:16]
    own = cache_folder() / "homes" / known_as
    return job.model_copy(update={"worker": job.worker.model_copy(update={"home": own})})


def obstacle(job: NodeJob) -> UserError | None:
    """Return why this machine cannot take part in a study, or None where it can."""
    if job.host not in (None, this_host()):
        return DatabaseError(
            f"the study's database is an SQLite file, which is safe on one machine only, and Ray gave it a worker on "
            f"{socket.gethostname()}; use storage: postgresql+psycopg://..., or executor: per_gpu"
        )
    shown = shared_word(job.worker.home, job.worker.study)
    if job.word is None or (shown.is_file() and shown.read_text(encoding="utf-8") == job.word):
        return None
    return HardwareError(
        f"{job.worker.home} is not the same folder on {socket.gethostname()}; put the home (SWEEPER_HOME) on a path "
        "that every node sees, or name a store for the files: executor: {kind: ray, artifacts: s3://bucket/prefix}"
    )


def shared_word(home: Path, study: str) -> Path:
    """Return the file by which nodes find out whether a home is one folder for all of them."""
    return Home(home).study(study).folder / "shared"


def wait_for_memory(present: Callable[[], Sequence[Gpu]] = gpus) -> None:
    """Wait until the memory of the GPU that this process sees is freed no further: a dead worker's takes seconds."""
    until, before = time.monotonic() + _FREED_S, -1
    while time.monotonic() < until:
        free = next((gpu.free_bytes for gpu in present()), None)
        if free is None or 0 <= before >= free:
            return
        before = free
        time.sleep(_LOOK_S)
