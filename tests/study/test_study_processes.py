"""Studies in processes of their own: killed, interrupted by Ctrl-C, and two at once."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from sweeper.config.trial import Outcome
from sweeper.errors import DatabaseError
from sweeper.paths import Home
from sweeper.store import Database, StudyState
from sweeper.study.run import resume_study, run_study


def records(home, name="tiny"):
    with Database.open(home.database, create=False) as database:
        return database.studies.get(name).state, database.trials.all(name)


@pytest.mark.long
def test_a_process_killed_in_a_trial_loses_only_that_trial(study_file, tmp_path, monkeypatch):
    through, killed = Home(tmp_path / "through"), Home(tmp_path / "killed")
    file = study_file(search={"n_trials": 3, "pruner": "none"})
    run_study(file, home=through)
    monkeypatch.setenv("SWEEPER_HOME", str(killed.folder))
    command = [sys.executable, str(Path(__file__).with_name("killed_study.py")), str(file.path), "1", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    state, trials = records(killed)
    assert state is StudyState.RUNNING  # nobody was left to say otherwise
    assert [trial.outcome for trial in trials] == [Outcome.COMPLETE, None]
    resume_study("tiny", home=killed)
    state, trials = records(killed)
    assert state is StudyState.FINISHED
    assert (trials[1].outcome, trials[1].reason) == (Outcome.INTERRUPTED, "the process that ran it ended")
    ended = [trial for trial in trials if trial.outcome is not Outcome.INTERRUPTED]
    _, expected = records(through)
    assert [(t.parameters, t.seed, t.value, t.adapter_sha256) for t in ended] == [
        (t.parameters, t.seed, t.value, t.adapter_sha256) for t in expected
    ]


@pytest.mark.long
def test_ctrl_c_ends_the_step_and_leaves_a_study_to_resume(study_file, tmp_path):
    space = {"learning_rate": {"low": 1e-3, "high": 1e-2}, "batch_size": 8, "epochs": 150}
    file = study_file(search={"space": space, "n_trials": 2, "pruner": "none"}, executor={"micro_batch": 8})
    home = Home.current()
    output = tmp_path / "output"
    with output.open("w") as stream:
        command = [sys.executable, "-m", "sweeper", "run", str(file.path)]
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
        try:
            _wait_for_a_step(home, process)
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 130, output.read_text()[-2000:]
        finally:
            process.kill()
            process.wait()
    text = output.read_text()
    assert "Traceback" not in text
    assert "sweeper resume tiny" in re.sub(r"\s+", " ", text)
    state, trials = records(home)
    assert state is StudyState.INTERRUPTED
    assert trials[-1].outcome is Outcome.INTERRUPTED
    assert 0 < trials[-1].steps < trials[-1].total_steps
    resume_study("tiny")
    state, trials = records(home)
    assert state is StudyState.FINISHED
    assert [trial.outcome for trial in trials if trial.outcome is not Outcome.INTERRUPTED] == [Outcome.COMPLETE] * 2


def _wait_for_a_step(home: Home, process: subprocess.Popen[bytes], timeout_s: float = 90.0) -> None:
    """Wait until the process has written the metrics of its first steps."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end and process.poll() is None:
        with suppress(DatabaseError), Database.open(home.database, create=False) as database:  # it is being made
            if database.studies.find("tiny") is not None and database.metrics.get("tiny"):
                return
        time.sleep(0.1)
    raise AssertionError("the study wrote no metrics")
