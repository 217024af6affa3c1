"""A trial in processes of its own: for a backend that spreads it over devices, or that patches what it touches."""

from __future__ import annotations

import math
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch's own stubs leave it out

from sweeper import errors
from sweeper.config.backend import processes
from sweeper.config.trial import Decision, Outcome, Report, TrialResult, TrialSpec
from sweeper.executors.line import Line
from sweeper.executors.worker import Job
from sweeper.hardware import machine
from sweeper.paths import TrialPaths, write_atomically

WORKER = (sys.executable, "-m", "sweeper.executors.worker")
PATIENCE_S = 20.0
"""How often to tell processes that an answer takes longer: well below every collective's timeout, minutes at least."""

_AFTERMATH_S = 1.0
"""After a process fails, how long to hear from others: one that only lost it may speak first."""


def train_in_processes(spec: TrialSpec, report: Report) -> TrialResult:
    """Train one trial in as many processes as its backend has, and return its result, which is on disk then.

    The processes end together: by themselves, when one fails or is killed, and with this process. Where memory runs
    out, the trial begins again with half the rows per forward pass, and is infeasible where a single one does not fit.

    Raises:
        UserError: If the data or the configuration is at fault.
    """
    told, size = _Told(report), processes(spec.backend, 0)
    share = math.ceil(spec.hyperparameters.batch_size / size)
    rows = min(spec.micro_batch or share, share)
    while True:
        with _started(spec, size, rows) as group:
            result = group.watch(told)
        if result.outcome is not Outcome.INFEASIBLE or rows == 1:
            break
        rows //= 2
    write_atomically(TrialPaths(spec.folder).result, result.model_dump_json(indent=2) + "\n")
    return result


class _Told:
    """A ``report`` that hears each step once, though a trial that began again comes by it twice."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._known: dict[tuple[int, bool], Decision] = {}

    def __call__(self, step: int, metrics: Mapping[str, float]) -> Decision:
        key = (step, "loss" in metrics)
        if key not in self._known:
            self._known[key] = self._report(step, metrics)
        return self._known[key]


class _Worker:
    """One process, as the process that runs the study sees it."""

    def __init__(self, job: Job, environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair()
        self.line = Line(ours)
        log = TrialPaths(job.spec.folder).log(job.rank)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file, theirs:
            self.process = subprocess.Popen(
                [*WORKER, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**os.environ, **environment},
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # the user's Ctrl-C is for the study, which then stops its trials
            )
        self.line.send(job.model_dump(mode="json"))
        self.log = log
        self.result: TrialResult | None = None

    def end(self) -> None:
        """End the process and all it started, and wait for it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.line.close()


class _Group:
    """The processes of one attempt at a trial."""

    def __init__(self, spec: TrialSpec) -> None:
        self.spec = spec
        self.workers: list[_Worker] = []
        self.began = datetime.now(UTC)

    def watch(self, report: Report) -> TrialResult:
        """Answer reports until the trial has ended, and return its result."""
        with selectors.DefaultSelector() as selector:
            for worker in self.workers:
                selector.register(worker.line, selectors.EVENT_READ, worker)
            while any(worker.result is None for worker in self.workers):
                heard = selector.select(_AFTERMATH_S if self._faults() else None)
                if not heard:
                    break  # the others wait for the one that failed
                for key, _ in heard:
                    if not self._hear(key.data, report):
                        selector.unregister(key.fileobj)
        faults = self._faults()
        return faults[0] if faults else self._results()[0]

    def _hear(self, worker: _Worker, report: Report) -> bool:
        """Take what a process says; tell whether it goes on."""
        values = worker.line.receive()
        if values is None:
            worker.result = worker.result or self._died(worker)
            return False
        for value in values:
            match value:
                case {"report": [step, metrics]}:
                    with _patient(worker.line):
                        decision = report(step, metrics)
                    worker.line.send(decision)
                case {"result": result}:
                    worker.result = TrialResult.model_validate(result)
                case {"fault": [name, text]}:
                    raise _user_error(name, text)
        return True

    def _results(self) -> list[TrialResult]:
        return [worker.result for worker in self.workers if worker.result is not None]

    def _faults(self) -> list[TrialResult]:
        """Return how processes failed, the first to fail first: the others may only have lost it."""
        faults = [result for result in self._results() if result.outcome in (Outcome.FAILED, Outcome.INFEASIBLE)]
        return sorted(faults, key=lambda result: result.finished_at)

    def _died(self, worker: _Worker) -> TrialResult:
        code = worker.process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        if code == -signal.SIGKILL:
            how += ", which the system does where main memory runs out"
        return TrialResult(
            number=self.spec.number,
            outcome=Outcome.FAILED,
            reason=f"process {self.workers.index(worker)} of the trial {how}; see {worker.log}",
            device=self.spec.device,
            started_at=self.began.isoformat(),
            finished_at=datetime.now(UTC).isoformat(),
        )


@contextmanager
def _patient(line: Line) -> Iterator[None]:
    """Tell the leading process now and then that its answer is still to come, as long as the block takes."""
    answered = threading.Event()

    def tell() -> None:
        while not answered.wait(PATIENCE_S):
            line.send(Decision.WAIT)

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        answered.set()
        teller.join()  # before the answer itself is sent: one at a time


def _user_error(name: str, text: str) -> errors.UserError:
    kind: Any = getattr(errors, name, errors.UserError)
    error: errors.UserError = kind(text)
    return error


@contextmanager
def _started(spec: TrialSpec, size: int, rows: int) -> Iterator[_Group]:
    """Start the processes of a trial, and end them with the ``with`` block, however it is left."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    threads = max(1, machine().cpus // size)  # more than there are processors wait for each other
    environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
    group = _Group(spec)
    try:
        for rank in range(size):
            job = Job(spec=spec, rank=rank, size=size, port=store.port, rows=rows)
            group.workers.append(_Worker(job, environment))
        yield group
    finally:
        for worker in group.workers:
            worker.end()
