"""GPUs as the driver lists them, through a stand-in for the driver's own program."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sweeper.errors import HardwareError
from sweeper.hardware import Gpu, OtherLoad, cpu_name, cpus, gpus, machine, pick_device

LINES = [
    "GPU-aaa, NVIDIA H200, 143771, 143000, 9.0",
    "GPU-bbb, NVIDIA T4, 15360, [N/A], 7.5",
]
FIRST = Gpu("NVIDIA H200", 143771 << 20, 143000 << 20, 9.0)
SECOND = Gpu("NVIDIA T4", 15360 << 20, None, 7.5)


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Put a program named nvidia-smi first on the path."""

    def install(script: str) -> None:
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return install


def listing() -> str:
    return "\n".join(f"echo '{line}'" for line in LINES)


def test_what_the_driver_lists(driver):
    driver(listing())
    assert gpus() == (FIRST, SECOND)


@pytest.mark.parametrize(
    "visible, seen",
    [
        ("1", (SECOND,)),
        ("1,0", (SECOND, FIRST)),
        ("GPU-bbb", (SECOND,)),
        ("", ()),
        ("-1", ()),
        ("0,7,1", (FIRST,)),
    ],
)
def test_visible_devices_are_obeyed_as_cuda_does(driver, monkeypatch, visible, seen):
    driver(listing())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus() == seen


@pytest.mark.parametrize("script", ["exit 9", "echo 'No devices were found'; exit 6", "echo nonsense"])
def test_a_driver_that_does_not_work_is_no_gpu(driver, script):
    driver(script)
    assert gpus() == ()


def test_the_machine_has_memory_and_processors():
    here = machine()
    assert here.cpus >= 1
    assert 0 < here.free_bytes <= here.total_bytes
    assert cpu_name()


def test_a_limit_of_the_container_counts(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    monkeypatch.setattr("sweeper.hardware._CGROUP", tmp_path)
    assert (machine().total_bytes, machine().free_bytes) == (1_000_000, 600_000)
    (tmp_path / "memory.max").write_text("max\n")
    assert machine().total_bytes > 1_000_000


def test_a_quota_of_the_container_counts(tmp_path, monkeypatch):
    monkeypatch.setattr("sweeper.hardware._CGROUP", tmp_path)
    monkeypatch.setattr("sweeper.hardware._affinity", lambda: set(range(8)))
    assert cpus() == 8
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    assert cpus() == 2
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cpus() == 8
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("50000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cpus() == 1  # half of one is still one
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert cpus() == 8


def test_only_what_others_compute_is_taken(monkeypatch):
    looks = iter([(0.0, 100.0, 10.0), (2.0, 103.5, 12.5), (4.0, 104.0, 15.0)])
    monkeypatch.setattr(OtherLoad, "_seconds", staticmethod(lambda: next(looks)))
    load = OtherLoad()
    assert load.cores() == pytest.approx(min(0.5, float(cpus())))  # 3.5 s of work in 2 s, of which 2.5 s were ours
    assert load.cores() == 0.0


def test_our_own_work_and_that_of_our_children_is_not_taken():
    spin = "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    busy, ours = OtherLoad._seconds()[1:]
    subprocess.run([sys.executable, "-c", spin], check=True)
    busy_after, ours_after = OtherLoad._seconds()[1:]
    assert 0.5 <= ours_after - ours < 5.0
    assert busy_after - busy >= 0.4  # ticks of 10 ms


def test_the_device_that_is_picked():
    assert pick_device("auto", ()) == "cpu"
    assert pick_device("cpu", (FIRST,)) == "cpu"
    assert pick_device("auto", (FIRST,)) == "cuda:0"
    assert pick_device("cuda", (FIRST,)) == "cuda:0"
    assert pick_device("cuda:1", (FIRST, SECOND)) == "cuda:1"


def test_a_device_that_is_not_there(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(HardwareError, match=r"no GPU \(CUDA_VISIBLE_DEVICES is ''\)"):
        pick_device("cuda", ())
    with pytest.raises(HardwareError, match=r"there is only 1 GPU: cuda:0$"):
        pick_device("cuda:1", (FIRST,))
    with pytest.raises(HardwareError, match="there are only 2 GPUs: cuda:0 to cuda:1"):
        pick_device("cuda:2", (FIRST, SECOND))


def test_a_study_on_a_gpu_is_estimated_with_it(driver, sweeper, write_study):
    driver(listing())
    result = sweeper("check", write_study("executor: {device: cuda:1}\n"))
    assert result.exit_code == 0, result.output
    assert "trains on cuda:1" in result.stdout
    assert "float16); cuda:1 has an unknown amount free" in result.stdout
    assert "assumed for NVIDIA T4" in result.stdout
    first = sweeper("check", write_study("executor: {device: auto}\n"))
    assert "bfloat16); cuda:0 has 139.6 GiB free" in first.stdout
