"""Workers started, watched, ended and started again, each of them a real process that does what a test says."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from sweeper.errors import DataError, HardwareError, SweeperError
from sweeper.executors.listener import Listener
from sweeper.executors.workers import coordinator
from sweeper.executors.workers import process as workers
from sweeper.executors.workers.per_gpu import Devices, PerGpuExecutor
from sweeper.hardware import Gpu, pick_devices, visible_as
from sweeper.store import StudyState

STANDIN = Path(__file__).with_name("standin_worker.py")


class Noting(Listener):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Let workers do what is written down, a line each."""
    path = tmp_path / "script"
    monkeypatch.setenv("SCRIPT", str(path))
    monkeypatch.setattr(workers, "COMMAND", (sys.executable, str(STANDIN)))

    def write(*lines):
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    return write


@pytest.fixture
def study(begin):
    """Begin a study of two workers on the CPU that nobody trains."""

    def conduct(devices=2, **parts):
        listener = Noting()
        context = begin(listener=listener, executor={"kind": "per_gpu", "devices": devices, "device": "cpu", **parts})
        listener.notes.clear()
        return context, listener

    return conduct


def started(script):
    path = script.with_suffix(".started")
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def no_process_is_left(script):
    return not any(psutil.pid_exists(int(pid)) for pid, _ in started(script))


def until(true, timeout_s=20):
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def test_every_place_has_a_worker_and_the_study_ends_with_the_last(study, script, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("sweeper.executors.workers.per_gpu.machine", lambda: type("Machine", (), {"cpus": 6}))
    path = script("note=here trial=0 ended=0", "note=here")
    context, listener = study()
    PerGpuExecutor().run(context)
    assert sorted(listener.notes) == ["cpu worker 0: here on cpu", "cpu worker 1: here on cpu"]
    assert [environment for _, environment in started(path)] == [",3", ",3"]  # no GPU, half of the processors
    assert no_process_is_left(path)


def test_a_dead_worker_is_followed_by_another_and_the_reason_is_shown(study, script):
    path = script("trial=0 die=7", "trial=0 kill=9", "")
    context, listener = study(devices=1)
    PerGpuExecutor().run(context)
    assert listener.notes == [
        "cpu worker 0 ended with exit code 7: something broke; another one is started",
        "cpu worker 0 was killed by SIGKILL, which the system does where main memory runs out; another one is started",
    ]
    assert len(started(path)) == 3
    assert "something broke" in context.paths.worker_log("cpu-worker-0").read_text()


def test_a_place_is_given_up_after_so_many_deaths_in_a_row_and_the_others_go_on(study, script):
    path = script(*["die=1"] * 20)
    context, listener = study(devices=2, max_restarts=1)
    PerGpuExecutor().run(context)  # nothing was begun, so nothing is left over
    assert len(started(path)) == 4
    assert sum(note.endswith("so did 2 in a row: no other is") for note in listener.notes) == 2


def test_deaths_after_trials_that_ended_do_not_add_up(study, script):
    path = script(*["trial=0 ended=0 die=1"] * 3, "")
    context, _ = study(devices=1, max_restarts=1)
    PerGpuExecutor().run(context)
    assert len(started(path)) == 4


def test_trials_left_over_without_a_worker_are_an_error_that_says_why(study, script):
    script(*["die=1"] * 9)
    context, _ = study(devices=1, max_restarts=1)
    context.search.ask()
    context.search._live.clear()  # begun by a process that is no more
    with pytest.raises(SweeperError, match=r"no worker could be kept alive: .* exit code 1: something broke.*resume"):
        PerGpuExecutor().run(context)


def test_a_worker_that_hangs_is_ended_with_all_that_it_started(study, script):
    path = script("trial=0 child hang", "")
    context, listener = study(devices=1, stall_timeout_s=4)
    began = time.monotonic()
    PerGpuExecutor().run(context)
    assert time.monotonic() - began < 30
    assert listener.notes == ["cpu worker 0: no step for 4 s; another one is started"]
    child = int(path.with_suffix(".child").read_text())
    until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
    assert no_process_is_left(path)


def test_a_worker_of_a_paused_study_does_not_hang(study, script):
    path = script("trial=0 stop")
    context, listener = study(devices=1, stall_timeout_s=1)
    context.database.studies.set_state("tiny", StudyState.PAUSED)
    timer = threading.Timer(3, context.stop.set)
    timer.start()
    PerGpuExecutor().run(context)
    assert (len(started(path)), listener.notes) == (1, [])


def test_the_wish_to_stop_reaches_every_worker(study, script):
    path = script("trial=0 stop", "trial=1 stop")
    context, listener = study()
    threading.Timer(0.2, lambda: (until(lambda: len(started(path)) == 2), context.stop.set())).start()
    PerGpuExecutor().run(context)
    assert (len(started(path)), listener.notes) == (2, [])
    assert no_process_is_left(path)


def test_a_second_wish_ends_them_at_once(study, script, monkeypatch):
    path = script("trial=0 hang", "trial=1 hang")
    context, _ = study()
    glance = time.sleep

    def interrupted(seconds):
        glance(seconds)
        if len(started(path)) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(coordinator, "time", type("Time", (), {"sleep": interrupted, "monotonic": time.monotonic}))
    with pytest.raises(KeyboardInterrupt):
        PerGpuExecutor().run(context)
    assert len(started(path)) == 2
    assert no_process_is_left(path)


def test_an_order_to_stop_that_one_worker_heard_stops_all(study, script):
    path = script("trial=0 stop", "trial=1 die=130")
    context, _ = study()
    PerGpuExecutor().run(context)
    assert context.stop.is_set
    assert no_process_is_left(path)


def test_a_fault_of_the_users_ends_the_others_and_is_raised(study, script):
    path = script("trial=0 stop", "fault")
    context, _ = study()
    with pytest.raises(DataError, match="no rows in here"):
        PerGpuExecutor().run(context)
    assert not context.stop.is_set
    assert no_process_is_left(path)


def test_workers_end_with_the_process_that_started_them(script, tmp_path):
    path = script("trial=0 child hang")
    code = (
        "import sys, time; from pathlib import Path; from sweeper.executors.workers import process as workers;"
        f"workers.COMMAND = (sys.executable, {str(STANDIN)!r});"
        "job = workers.WorkerJob(study='tiny', home=Path('.'), device='cpu');"
        f"workers.WorkerProcess(job, Path({str(tmp_path / 'log')!r}), {{'CUDA_VISIBLE_DEVICES': '', "
        "'OMP_NUM_THREADS': '1'}); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    child = path.with_suffix(".child")
    until(lambda: child.exists() and child.read_text())
    parent.kill()
    parent.wait()
    gone = [int(child.read_text()), *(int(pid) for pid, _ in started(path))]
    until(lambda: not any(psutil.pid_exists(p) and psutil.Process(p).status() != "zombie" for p in gone))


def test_a_worker_hears_its_parent_end_before_it_imports_torch():
    ours, theirs = socket.socketpair()
    code = "import sys; sys.modules['torch'] = None; from sweeper.study import worker; worker.main()"
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(theirs.fileno())], pass_fds=[theirs.fileno()], start_new_session=True
    )
    theirs.close()
    ours.close()
    assert child.wait(60) == -signal.SIGKILL


# ---- devices


GIB = 1 << 30


def test_devices_are_counted_or_named():
    two = (Gpu("one"), Gpu("two"))
    assert pick_devices("auto", "auto", two) == ("cuda:0", "cuda:1")
    assert pick_devices("auto", "auto", ()) == ("cpu",)
    assert pick_devices("auto", "cpu", two) == ("cpu",)
    assert pick_devices(2, "auto", ()) == pick_devices(2, "cpu", two) == ("cpu", "cpu")
    assert pick_devices(("cuda:1",), "auto", two) == ("cuda:1",)
    with pytest.raises(HardwareError, match=r"asks for cuda:2, but of GPUs there are only 2"):
        pick_devices(3, "auto", two)
    with pytest.raises(HardwareError, match=r"asks for cuda:0, but of GPUs there is none that the driver shows"):
        pick_devices(("cuda:0",), "auto", ())


def test_a_worker_sees_its_device_alone(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert (visible_as("cpu"), visible_as("cuda:1")) == ("", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5e")
    assert (visible_as("cuda:0"), visible_as("cuda:1")) == ("3", "GPU-5e")


def test_no_worker_starts_on_a_gpu_before_the_memory_of_the_dead_one_is_free(study, script, monkeypatch):
    path = script(*["die=1"] * 4)
    free = iter([70.0, 10.0, 40.0, 69.9])
    monkeypatch.setattr("sweeper.executors.workers.per_gpu._LOOK_S", 0.0)
    context, _ = study(devices=1)
    devices = Devices(context, ("cuda:0",), lambda: (Gpu("one", 80 * GIB, int(next(free) * GIB)),))
    first = devices.start(0)
    until(lambda: first.pulse().exit_code == 1)
    first.end()
    assert devices.start(0) is None
    assert devices.start(0) is None
    second = devices.start(0)
    until(lambda: second.pulse().exit_code == 1)
    second.end()
    assert [environment.partition(",")[0] for _, environment in started(path)] == ["0", "0"]
