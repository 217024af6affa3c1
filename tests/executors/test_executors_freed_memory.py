"""The memory of a GPU is waited for after a process on it was killed, and not for ever."""

from __future__ import annotations

import pytest

from sweeper.executors import gpu_memory as freed_memory
from sweeper.executors.gpu_memory import FreedMemory
from sweeper.hardware import Gpu

GIB = 1 << 30


class Driver:
    """Lists two GPUs; the second one has ``free`` GiB, one answer after the other and the last for ever."""

    def __init__(self, *free):
        self.free = list(free)
        self.asked = 0

    def __call__(self):
        self.asked += 1
        free = self.free.pop(0) if len(self.free) > 1 else self.free[0]
        return Gpu("one", 80 * GIB, 0), Gpu("other", 80 * GIB, None if free is None else int(free * GIB))


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    monkeypatch.setattr(freed_memory, "_LOOK_S", 0.01)


def test_it_waits_until_what_was_free_is_free_again():
    driver = Driver(70, 40, 55, 69.9)  # what is left of a CUDA context goes up and down
    assert FreedMemory(["cuda:1"], look=driver).wait() is None
    assert driver.asked == 4


def test_what_does_not_come_back_is_said():
    memory = FreedMemory(["cuda:1"], patience_s=0.05, look=Driver(70, 40))
    assert memory.wait() == (
        "30.0 GiB on cuda:1 did not come back in 0.05 s: another process has it (see `nvidia-smi`)"
    )


def test_more_than_before_is_fine():
    assert FreedMemory(["cuda:1"], look=Driver(70, 75)).wait() is None


@pytest.mark.parametrize("devices", [["cpu"], []])
def test_on_the_cpu_nobody_is_asked(devices):
    driver = Driver(70, 40)
    assert FreedMemory(devices, look=driver).wait() is None
    assert driver.asked == 0


@pytest.mark.parametrize(("device", "free"), [("cuda:1", None), ("cuda:7", 70)])
def test_a_driver_that_does_not_tell_is_not_waited_for(device, free):
    assert FreedMemory([device], look=Driver(free)).wait() is None
