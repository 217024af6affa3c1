"""A trial in processes of its own: for a backend that spreads it over devices, or that patches what it touches."""

from __future__ import annotations

import math
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch's own stubs leave it out

from sweeper import errors
from sweeper.config.backend import processes
from sweeper.config.trial import Decision, Outcome, Report, TrialResult, TrialSpec
from sweeper.executors.channel import JsonChannel
from sweeper.executors.distributed.rank import Job
from sweeper.executors.gpu_memory import FreedMemory
from sweeper.files.atomic import write_atomically
from sweeper.hardware import machine
from sweeper.paths import TrialPaths
from sweeper.training.checkpoint import has_checkpoint
from sweeper.training.resumable_trainer import CheckpointPolicy

WORKER = (sys.executable, "-m", "sweeper.executors.distributed.rank")
PATIENCE_S = 20.0
"""How often to tell processes that an answer takes longer: well below every collective's timeout, minutes at least."""

_LAST_WORDS_S = 0.5
"""How long a process that hangs gets to write down where."""

_AFTERMATH_S = 1.0
"""After a process fails, how long to hear from others: one that only lost it may speak first."""


def _silent(text: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class LaunchPolicy:
    """What is done about processes that die or hang.

    Attributes:
        max_retries: How often in a row, without a checkpoint in between, a trial whose process was killed or hung is
            gone on with, or begun again where it has no checkpoint.
        stall_timeout_s: Seconds without a word from any process after which they hang; None is never.
        checkpoints: When to checkpoint; None for never.
        note: Told what happened, in a sentence.
    """

    max_retries: int = 0
    stall_timeout_s: float | None = None
    checkpoints: CheckpointPolicy | None = None
    note: Callable[[str], None] = _silent


def train_in_processes(spec: TrialSpec, report: Report, policy: LaunchPolicy | None = None) -> TrialResult:
    """Train one trial in as many processes as its backend has, and return its result, which is on disk then.

    The processes end together: by themselves, when one fails, is killed or hangs, and with this process. Where memory
    runs out, the trial begins again with half the rows per forward pass, and is infeasible where a single one does not
    fit. Where one was killed or hung, the trial goes on from its checkpoint, or begins again.

    Raises:
        UserError: If the data or the configuration is at fault.
        LeaseLost: If the trial was reassigned to another worker.
    """
    policy, told, size = policy or LaunchPolicy(), _Told(report), processes(spec.backend, 0)
    share = math.ceil(spec.hyperparameters.batch_size / size)
    rows = min(spec.micro_batch or share, share)
    losses, paths = _Losses(spec, size, policy), TrialPaths(spec.folder)
    while True:
        with _started(spec, size, rows, policy) as group:
            result = group.watch(told)
        if group.has_lost:
            if not losses.may_be_tried_again(result):
                result = losses.given_up(result)
                break
        elif result.outcome is Outcome.INFEASIBLE and rows > 1:
            rows //= 2
        else:
            break
    if policy.checkpoints is not None:
        policy.checkpoints.before()
    write_atomically(paths.result, result.model_dump_json(indent=2) + "\n")
    if not result.outcome.is_open:
        shutil.rmtree(paths.frozen, ignore_errors=True)
    return result


class _Losses:
    """How often a trial lost a process in a row, without a checkpoint in between."""

    def __init__(self, spec: TrialSpec, size: int, policy: LaunchPolicy) -> None:
        self._number = spec.number
        self._paths = TrialPaths(spec.folder)
        self._policy = policy
        self._memory = FreedMemory(_devices(spec, size))
        self._count = 0
        self._checkpoint = self._latest()

    def may_be_tried_again(self, result: TrialResult) -> bool:
        """Count one more once the devices are free again, and tell whether that was not one too many."""
        note, most = self._policy.note, self._policy.max_retries
        if short := self._memory.wait():
            note(short)
        if self._latest() != self._checkpoint:
            self._count, self._checkpoint = 0, self._latest()
        self._count += 1
        if self._count > most:
            return False
        how = "goes on from its checkpoint" if has_checkpoint(self._paths) else "begins again"
        note(f"trial {self._number} {how} (retry {self._count} of {most}): {result.reason}")
        return True

    def given_up(self, result: TrialResult) -> TrialResult:
        """Say in a result that it was not the first of its kind."""
        times = f"; so it was {self._count} times in a row" if self._count > 1 else ""
        return result.model_copy(update={"reason": f"{result.reason}{times}"})

    def _latest(self) -> int:
        """Return what tells the trial's checkpoint from an earlier one; 0 where it has none."""
        return self._paths.frozen.stat().st_mtime_ns if self._paths.is_frozen else 0


def _devices(spec: TrialSpec, size: int) -> list[str]:
    return [spec.device] if spec.device == "cpu" or size == 1 else [f"cuda:{rank}" for rank in range(size)]


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
        self.line = JsonChannel(ours)
        log = TrialPaths(job.spec.folder).log(job.rank)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file, theirs:
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

    def say_where_it_hangs(self) -> None:
        """Let the process write into its log what each of its threads does."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGUSR1)

    def end(self) -> None:
        """End the process and all it started, and wait for it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.line.close()


class _Group:
    """The processes of one attempt at a trial."""

    def __init__(self, spec: TrialSpec, policy: LaunchPolicy) -> None:
        self.spec = spec
        self.workers: list[_Worker] = []
        self.began = datetime.now(UTC)
        self.has_lost = False
        self._policy = policy
        self._heard = time.monotonic()
        self._killed: list[TrialResult] = []

    def watch(self, report: Report) -> TrialResult:
        """Answer reports until the trial has ended, and return its result; ``has_lost`` says if a process was lost."""
        with selectors.DefaultSelector() as selector:
            for worker in self.workers:
                selector.register(worker.line, selectors.EVENT_READ, worker)
            while any(worker.result is None for worker in self.workers):
                heard = selector.select(_AFTERMATH_S if self._faults() else self._patience_s())
                if not heard and self._faults():
                    break  # the others wait for the one that failed
                if not heard and self._patience_s() == 0:
                    return self._hung()
                for key, _ in heard:
                    if not self._hear(key.data, report):
                        selector.unregister(key.fileobj)
                    self._heard = time.monotonic()
        faults = self._faults()
        result = faults[0] if faults else self._results()[0]
        self.has_lost = any(result is killed for killed in self._killed)
        return result

    def _patience_s(self) -> float | None:
        """Return how long a word may take to come yet; None for however long."""
        if self._policy.stall_timeout_s is None:
            return None
        return max(0.0, self._heard + self._policy.stall_timeout_s - time.monotonic())

    def _hung(self) -> TrialResult:
        self.has_lost = True
        for worker in self.workers:
            worker.say_where_it_hangs()
        time.sleep(_LAST_WORDS_S)
        logs = ", ".join(str(worker.log) for worker in self.workers)
        return self._failed(f"no step for {self._policy.stall_timeout_s:g} s; where it hung is in {logs}")

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
                case {"checkpoint": _}:
                    if self._policy.checkpoints is not None:
                        self._policy.checkpoints.before()
                    worker.line.send(True)
                case {"alive": _}:
                    pass  # that it was heard is all that it says
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
        result = self._failed(f"process {self.workers.index(worker)} of the trial {how}; see {worker.log}")
        if code < 0:
            self._killed.append(result)
        return result

    def _failed(self, reason: str) -> TrialResult:
        return TrialResult(
            number=self.spec.number,
            outcome=Outcome.FAILED,
            reason=reason,
            device=self.spec.device,
            started_at=self.began.isoformat(),
            finished_at=datetime.now(UTC).isoformat(),
        )


@contextmanager
def _patient(line: JsonChannel) -> Iterator[None]:
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
def _started(spec: TrialSpec, size: int, rows: int, policy: LaunchPolicy) -> Iterator[_Group]:
    """Start the processes of a trial, and end them with the ``with`` block, however it is left."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    threads = max(1, machine().cpus // size)  # more than there are processors wait for each other
    environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
    group = _Group(spec, policy)
    every_s = None if policy.checkpoints is None else policy.checkpoints.every_s
    job = Job(
        spec=spec,
        rank=0,
        size=size,
        port=store.port,
        rows=rows,
        checkpoint_s=every_s,
        resume=has_checkpoint(TrialPaths(spec.folder)),
    )
    try:
        for rank in range(size):
            group.workers.append(_Worker(job.model_copy(update={"rank": rank}), environment))
        yield group
    finally:
        for worker in group.workers:
            worker.end()
