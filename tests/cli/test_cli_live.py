"""The live view of several trials at once."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from sweeper.cli.live import LiveView, PlainLines
from sweeper.config.trial import Outcome, TrialResult
from sweeper.search.candidate import Candidate
from sweeper.store import TrialKind

AT = "2026-01-01T00:00:00+00:00"


@pytest.fixture
def config(study_file):
    return study_file(search={"n_trials": 4}).config


def shown(view):
    console = Console(file=io.StringIO(), width=140, force_terminal=False)
    console.print(view._render())
    return console.file.getvalue()


def start(view, *numbers, steps=10, device="cpu"):
    for number in numbers:
        candidate = Candidate(number, {"learning_rate": 10.0**-number}, 0, TrialKind.SAMPLED)
        view.trial_started(candidate, SimpleNamespace(device=device), steps)


@pytest.fixture
def others(monkeypatch):
    """Let other processes take as many of 2 cores as the test says, looked at each time."""
    load = SimpleNamespace(cores=0.0)
    monkeypatch.setattr("sweeper.cli.live.OtherLoad", lambda: SimpleNamespace(cores=lambda: load.cores))
    monkeypatch.setattr("sweeper.cli.live.cpus", lambda: 2)
    monkeypatch.setattr("sweeper.cli.live._LOAD_EVERY_S", 0.0)
    return load


def ended(number, outcome=Outcome.COMPLETE, value=1.5):
    complete = outcome is Outcome.COMPLETE
    return TrialResult(
        number=number,
        outcome=outcome,
        reason=None if complete else "for the test",
        value=value if complete else None,
        best_step=10,
        steps=10,
        total_steps=10,
        started_at=AT,
        finished_at=AT,
    )


def test_every_slot_has_a_line_of_its_own(config):
    view = LiveView(Console(file=io.StringIO()), config)
    start(view, 0, 2)
    view.trial_reported(0, 3, {"loss": 2.5, "learning_rate": 0.001})
    view.trial_reported(2, 7, {"loss": 1.25})
    lines = [line for line in shown(view).splitlines() if "step " in line]
    assert len(lines) == 2
    assert "trial 0" in lines[0] and "step 3/10  loss 2.5  learning_rate 0.001" in lines[0]
    assert "trial 2" in lines[1] and "step 7/10  loss 1.25" in lines[1]
    view.trial_ended(ended(0))
    text = shown(view)
    assert "step 3/10" not in text
    assert "step 7/10" in text
    assert "trials 1/4" in text
    assert "sampled: learning_rate=0.01" in text  # alone, a trial says what it tries


def test_a_paused_trial_leaves_its_slot_and_is_not_done(config):
    view = LiveView(Console(file=io.StringIO()), config)
    start(view, 0, 1)
    view.trial_ended(ended(1, Outcome.PAUSED))
    assert "trials 0/4" in shown(view)
    assert "trial 1 paused" in shown(view)
    start(view, 1)
    view.trial_reported(1, 6, {"loss": 1.0})
    assert "step 6/10" in shown(view)
    view.trial_ended(ended(1))
    assert "trials 1/4" in shown(view)


def test_plain_lines_name_the_trial(config):
    console = Console(file=io.StringIO(), width=200)
    lines = PlainLines(console, config)
    start(lines, 0, 1)
    lines.trial_reported(1, 5, {"eval_loss": 2.25})
    lines.trial_reported(0, 4, {"loss": 9.0})
    lines.trial_ended(ended(1))
    lines.trial_reported(1, 6, {"eval_loss": 0.0})  # of a trial that has ended, nothing
    text = console.file.getvalue().splitlines()
    assert text[0].startswith("trial 0 (sampled; 10 steps)")
    assert text[2] == "trial 1 step 5/10: eval_loss 2.25"
    assert text[3].startswith("trial 1 complete: eval_loss 1.5 at step 10 of 10")
    assert len(text) == 4


def test_the_rest_is_estimated_from_all_slots(config, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("sweeper.cli.live.time.monotonic", lambda: clock.now)
    view = LiveView(Console(file=io.StringIO()), config)
    start(view, 0, 1, 2)
    assert view._progress.eta_s() is None
    view.trial_ended(ended(0))
    view.trial_reported(1, 5, {"loss": 1.0})
    view.trial_reported(2, 5, {"loss": 1.0})
    clock.now = 20.0
    assert view._progress.eta_s() == 20.0  # one trial and two halves in 20 s; two trials' worth is left


def test_the_live_view_shows_that_other_processes_take_cores_while_they_do(config, others):
    view = LiveView(Console(file=io.StringIO()), config)
    others.cores = 1.8
    assert "other processes" not in shown(view)  # nothing trains yet
    start(view, 0)
    assert "1.8 of 2 cores are taken by other processes" in shown(view)
    others.cores = 0.3
    assert "other processes" not in shown(view)


def test_on_a_gpu_busy_cores_are_not_mentioned(config, others):
    view = LiveView(Console(file=io.StringIO()), config)
    others.cores = 1.8
    start(view, 0, device="cuda:0")
    assert "other processes" not in shown(view)


def test_plain_lines_say_once_that_the_machine_is_busy(config, others):
    console = Console(file=io.StringIO(), width=200)
    lines = PlainLines(console, config)
    start(lines, 0)
    lines.trial_reported(0, 1, {"loss": 1.0})
    others.cores = 1.8
    lines.trial_reported(0, 2, {"loss": 1.0})
    lines.trial_reported(0, 3, {"loss": 1.0})
    noted = [line for line in console.file.getvalue().splitlines() if line.startswith("note: ")]
    assert noted == ["note: 1.8 of 2 cores are taken by other processes, so training is slower than usual"]
