"""One worker process a GPU of this machine; without GPUs, workers that divide its processors."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from sweeper.config.executor import PerGpuExecutorConfig
from sweeper.config.trial import TrialSpec
from sweeper.executors.base_models import BaseModelCache
from sweeper.executors.context import StudyContext
from sweeper.executors.gpu_memory import FreedMemory
from sweeper.executors.workers.coordinator import Coordinator
from sweeper.executors.workers.process import WorkerJob, WorkerProcess
from sweeper.hardware import Gpu, gpus, machine, pick_devices, visible_as
from sweeper.training.base_model import BaseModel

_FREE_S = 120.0
"""How long to wait for the memory of a dead worker: the driver takes seconds, so what lasts longer is another's."""

_LOOK_S = 1.0


class PerGpuExecutor:
    """Runs a study's trials in worker processes, one a device; each packs those that it takes."""

    def __init__(self) -> None:
        self._bases = BaseModelCache()

    def base(self, context: StudyContext, spec: TrialSpec) -> BaseModel:
        """Return the base model of a trial, loading it unless it is the one before's."""
        return self._bases.of(context, spec)

    def run(self, context: StudyContext) -> None:
        """Run trials until no worker finds any, or the user asks to stop."""
        if context.stop.is_set:
            return
        executor = context.config.executor
        assert isinstance(executor, PerGpuExecutorConfig)
        Coordinator(context, Devices(context, pick_devices(executor.devices, executor.device, gpus()))).run()


class Devices:
    """The devices of this machine as places for workers.

    Args:
        context: The study.
        names: ``cpu`` or ``cuda:N``, one a worker.
        gpus: Tells what the driver lists now.
    """

    def __init__(self, context: StudyContext, names: Sequence[str], gpus: Callable[[], tuple[Gpu, ...]] = gpus) -> None:
        self._context = context
        self._names = names
        self._gpus = gpus
        self._memory: dict[int, FreedMemory] = {}
        self._waiting: dict[int, float] = {}
        self._looked: dict[int, float] = {}

    def size(self) -> int:
        """Return how many workers there are."""
        return len(self._names)

    def name(self, place: int) -> str:
        """Return the device; of several workers on processors, the number too."""
        name = self._names[place]
        return name if name != "cpu" else f"cpu worker {place}"

    def start(self, place: int) -> WorkerProcess | None:
        """Start a worker, once the memory of the one before is free."""
        device = self._names[place]
        if device != "cpu" and not self._is_free(place, device):
            return None
        job = WorkerJob(
            study=self._context.config.name,
            home=self._context.paths.home,
            device="cpu" if device == "cpu" else "cuda:0",  # the only one that it sees
            n_workers=len(self._names),
        )
        log = self._context.paths.worker_log(self.name(place).replace(":", "-").replace(" ", "-"))
        return WorkerProcess(job, log, self._environment(device))

    def _environment(self, device: str) -> dict[str, str]:
        """Return what a worker is told of its device; more threads than there are processors wait for each other."""
        threads = max(1, machine().cpus // len(self._names))
        return {
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as the driver's list has it
            "CUDA_VISIBLE_DEVICES": visible_as(device),
        }

    def _is_free(self, place: int, device: str) -> bool:
        """Tell whether a GPU's memory is as free as before the first worker was started there, or was waited for."""
        if place not in self._memory:
            self._memory[place] = FreedMemory([device], _FREE_S, self._gpus)
            return True
        now = time.monotonic()
        if now - self._looked.get(place, -_LOOK_S) < _LOOK_S:
            return False
        self._looked[place] = now
        memory, began = self._memory[place], self._waiting.setdefault(place, now)
        if not memory.is_back():
            if now - began < _FREE_S:
                return False
            self._context.listener.note(f"{self.name(place)}: {memory.complaint()}")
        del self._waiting[place]
        return True
