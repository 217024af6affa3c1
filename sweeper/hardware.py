"""This machine without torch: processors and how busy others keep them, memory, and GPUs as their driver lists them."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from sweeper.errors import HardwareError

_FIELDS = "uuid,name,memory.total,memory.free,compute_cap"
_TIMEOUT_S = 10.0
_MIB = 1 << 20
_DEVICE_NODES = ("/dev/nvidia0", "/dev/dxg", "/dev/kfd")  # NVIDIA's driver, the same under WSL, AMD's ROCm
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Gpu:
    """A GPU; what the driver does not report is None.

    Attributes:
        name: As its driver names it.
        total_bytes: Its memory.
        free_bytes: Its free memory now.
        capability: CUDA compute capability, for example 9.0.
    """

    name: str
    total_bytes: int | None = None
    free_bytes: int | None = None
    capability: float | None = None


@dataclass(frozen=True)
class Machine:
    """Resources of this machine that this process may use, its container's limits included.

    Attributes:
        cpus: Processors.
        total_bytes: Main memory.
        free_bytes: Free main memory now.
        gpus: GPUs in CUDA's order.
    """

    cpus: int
    total_bytes: int
    free_bytes: int
    gpus: tuple[Gpu, ...]


def machine() -> Machine:
    """Return the resources of this machine now."""
    memory = psutil.virtual_memory()
    limit, used = _cgroup("memory.max"), _cgroup("memory.current")
    total, free = memory.total, memory.available
    if limit is not None and limit < total:
        total, free = limit, min(free, max(0, limit - (used or 0)))
    return Machine(cpus=cpus(), total_bytes=total, free_bytes=free, gpus=gpus())


def gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that CUDA sees under ``CUDA_VISIBLE_DEVICES``."""
    listed = _from_driver()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return tuple(gpu for _, gpu in listed)
    chosen: list[Gpu] = []
    for word in (part.strip() for part in visible.split(",")):
        found = [gpu for index, (uuid, gpu) in enumerate(listed) if word == str(index) or (word and uuid == word)]
        if not found:
            break  # as CUDA does: devices after one that does not exist are not seen either
        chosen += found
    return tuple(chosen)


def pick_device(wanted: str, present: tuple[Gpu, ...]) -> str:
    """Return ``cpu`` or ``cuda:N`` for a study's ``executor.device``.

    Raises:
        HardwareError: If the GPU does not exist.
    """
    if wanted == "cpu" or (wanted == "auto" and not present):
        return "cpu"
    index = int(wanted.partition(":")[2] or 0)
    if not present:
        raise HardwareError(
            f"executor.device is {wanted!r}, but this machine shows no GPU{_hidden()}; use `device: cpu` or `auto`, "
            "or see `sweeper doctor`"
        )
    if index >= len(present):
        raise HardwareError(
            f"executor.device is {wanted!r}, but there {'is' if len(present) == 1 else 'are'} only {len(present)} "
            f"GPU{'s' * (len(present) > 1)}: cuda:0{f' to cuda:{len(present) - 1}' * (len(present) > 1)}"
        )
    return f"cuda:{index}"


def pick_devices(wanted: int | Literal["auto"] | Sequence[str], device: str, present: Sequence[Gpu]) -> tuple[str, ...]:
    """Return the device of each worker.

    Args:
        wanted: A study's ``executor.devices``: a number or names; auto is every GPU.
        device: Its ``executor.device``; with ``cpu`` a number is that of workers on the CPU.
        present: The GPUs of this machine.

    Raises:
        HardwareError: If the GPU does not exist.
    """
    on_cpu = device == "cpu" or not present
    if wanted == "auto":
        return ("cpu",) if on_cpu else tuple(f"cuda:{index}" for index in range(len(present)))
    names = ["cpu" if on_cpu else f"cuda:{index}" for index in range(wanted)] if isinstance(wanted, int) else wanted
    missing = [name for name in names if name != "cpu" and int(name.partition(":")[2]) >= len(present)]
    if missing:
        here = f"only {len(present)}" if present else f"none that the driver shows{_hidden()}"
        raise HardwareError(
            f"executor.devices asks for {', '.join(missing)}, but of GPUs there {'is' if len(present) < 2 else 'are'} "
            f"{here}; use `devices: auto`, or see `sweeper doctor`"
        )
    return tuple(names)


def visible_as(device: str) -> str:
    """Return the ``CUDA_VISIBLE_DEVICES`` with which a child process sees only one of this process's devices."""
    if device == "cpu":
        return ""
    index = int(device.partition(":")[2] or 0)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return str(index) if visible is None else visible.split(",")[index].strip()


def _hidden() -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"


def _from_driver() -> list[tuple[str, Gpu]]:
    """Return (UUID, GPU) of each from ``nvidia-smi``, or what the device nodes show if it is missing."""
    command = shutil.which("nvidia-smi")
    if command is not None:
        try:
            query = [command, f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"]
            answer = subprocess.run(query, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
        except (OSError, subprocess.SubprocessError):
            return []  # installed without a working driver
        return [_gpu(line) for line in answer.stdout.splitlines() if line.count(",") >= 4]
    return [("", Gpu("a GPU without nvidia-smi"))] if any(Path(node).exists() for node in _DEVICE_NODES) else []


def _gpu(line: str) -> tuple[str, Gpu]:
    uuid, name, total, free, capability = (part.strip() for part in line.split(",", 4))
    return uuid, Gpu(name, _mebibytes(total), _mebibytes(free), _number(capability))


def _mebibytes(text: str) -> int | None:
    number = _number(text)
    return None if number is None else int(number * _MIB)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # "[N/A]"
        return None


def _cgroup(name: str) -> int | None:
    """Return a number from the control group of this process, as its container sees it; None without one."""
    try:
        return int((_CGROUP / name).read_text())
    except (OSError, ValueError):  # ValueError: "max", which is no limit
        return None


def _quota() -> float | None:
    """Return how many processors' time the control group may use; None without a limit."""
    try:
        limit, period = (_CGROUP / "cpu.max").read_text().split()
        return int(limit) / int(period)
    except (OSError, ValueError):  # ValueError: "max"
        limits = _cgroup("cpu/cpu.cfs_quota_us"), _cgroup("cpu/cpu.cfs_period_us")  # the first version's files
        return limits[0] / limits[1] if limits[0] and limits[1] and limits[0] > 0 else None


def cpus() -> int:
    """Return how many processors this process may use: its affinity and its container's quota count."""
    count = len(_affinity()) or os.cpu_count() or 1
    quota = _quota()
    return count if quota is None else max(1, min(count, round(quota)))


def _affinity() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def cpu_name() -> str:
    """Return the processor's model as the system names it."""
    return _cpu_line("model name") or platform.processor() or platform.machine()


def cpu_features() -> str:
    """Return a short hash of the processor's instruction sets, which a virtual machine's model name does not tell."""
    return hashlib.sha256((_cpu_line("flags") or _cpu_line("Features")).encode()).hexdigest()[:8]


def _cpu_line(name: str) -> str:
    """Return what Linux says of its first processor; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), "")


class OtherLoad:
    """How many of this process's processors all others but it and its children keep busy, since the last look."""

    def __init__(self) -> None:
        self._last = self._seconds()

    def cores(self) -> float:
        """Return the mean number of busy processors since the last call, or since this object was made."""
        former, self._last = self._last, self._seconds()
        elapsed, busy, ours = (now - then for now, then in zip(self._last, former, strict=True))
        return min(max(0.0, (busy - ours) / elapsed), float(cpus())) if elapsed > 0 else 0.0

    @staticmethod
    def _seconds() -> tuple[float, float, float]:
        """Return a clock, the seconds for which processors were busy, and those for which they worked for us."""
        allowed = _affinity()
        every = [
            times for number, times in enumerate(psutil.cpu_times(percpu=True)) if not allowed or number in allowed
        ]
        busy = sum(sum(getattr(times, part, 0.0) for part in _BUSY) for times in every)
        return time.monotonic(), busy, sum(map(_spent, [psutil.Process(), *psutil.Process().children(recursive=True)]))


_BUSY = ("user", "nice", "system", "irq", "softirq")


def _spent(process: psutil.Process) -> float:
    """Return the processor seconds of a process and of those of its children that have ended."""
    try:
        return float(sum(process.cpu_times()[:4]))
    except psutil.Error:  # it has ended meanwhile
        return 0.0
