"""A process that hangs is ended, with what it started, and says where; one that goes forward is left alone."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sweeper.executors.watchdog import Watchdog

SCRIPT = Path(__file__).with_name("hanging.py")


def start(how, folder, **more):
    return subprocess.Popen([sys.executable, str(SCRIPT), how, str(folder), "1.0"], stderr=subprocess.PIPE, **more)


def ends(pid):
    """Whether a process ends soon; one that waits to be taken note of has ended."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("leads", [True, False], ids=["leads its group", "in a script's group"])
def test_what_hangs_is_ended_with_all_it_started_and_says_where(tmp_path, leads):
    with start("python", tmp_path, start_new_session=leads) as process:
        error = process.communicate(timeout=60)[1].decode()
    assert process.returncode == -signal.SIGKILL
    assert (tmp_path / "stepped").exists()  # two seconds of steps under a timeout of one
    assert ends(int((tmp_path / "child").read_text()))
    report = (tmp_path / "hang.txt").read_text()
    assert report.startswith("no sign of life for 1 s, the last one while evaluating")
    assert "hang_in_python" in report
    assert "this process hangs and is ended" in error and str(tmp_path / "hang.txt") in error


def test_what_hangs_with_the_interpreters_lock_is_ended_too(tmp_path):
    with start("lock", tmp_path, start_new_session=True) as process:
        process.wait(timeout=60)
    assert process.returncode == 1  # faulthandler's own end
    assert "hang_with_the_lock" in (tmp_path / "hang.txt").read_text()
    psutil.Process(int((tmp_path / "child").read_text())).kill()


def test_what_comes_to_its_end_leaves_nothing(tmp_path):
    with start("not", tmp_path) as process:
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert not (tmp_path / "hang.txt").exists()


def test_without_a_timeout_nothing_is_watched(tmp_path):
    with Watchdog(None, tmp_path / "hang.txt") as watchdog:
        watchdog.keep_alive()
        assert list(tmp_path.iterdir()) == []
