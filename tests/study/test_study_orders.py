"""Orders to a study that runs in another process: through the database, and through the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sweeper.cli.main import app
from sweeper.config.trial import Outcome
from sweeper.paths import Home
from sweeper.store import Database, OrderKind, OrderState, StudyState
from sweeper.study.orders import await_answer, give, is_run, state_of
from sweeper.study.run import resume_study

PLAIN = {"pruner": "none", "confirm": 0, "sampler": "random"}
PATIENCE_S = 120


class Runner:
    """A study in another process, and its database."""

    def __init__(self, database, *arguments):
        self.database = database
        script = Path(__file__).with_name("slow_study.py")
        self.process = subprocess.Popen([sys.executable, str(script), *arguments], stdout=subprocess.DEVNULL)

    def until(self, fact):
        for _ in range(PATIENCE_S * 20):
            if fact():
                return
            assert self.process.poll() is None, "the study ended"
            time.sleep(0.05)
        raise AssertionError("it never came to it")

    def until_step(self, step, number=0):
        self.until(lambda: self.exists and self.steps(number) >= step)

    @property
    def exists(self):
        return self.database.studies.find("tiny") is not None

    @property
    def state(self):
        return self.database.studies.get("tiny").state

    def steps(self, number=None):
        return len(self.database.metrics.get("tiny", number=number, name="loss"))

    def ask(self, kind, number=None, **data):
        given = give(Home.current(), self.database, "tiny", kind, actor="ada", number=number, data=data)
        return await_answer(self.database, "tiny", given.id, PATIENCE_S)

    def finish(self):
        assert self.process.wait(PATIENCE_S) == 0


@pytest.fixture
def start():
    home, runners = Home.current(), []
    with Database.open(home.database, create=True) as database:

        def begin(*arguments):
            runners.append(Runner(database, *arguments))
            return runners[-1]

        yield begin
        for runner in runners:
            if runner.process.poll() is None:
                os.kill(runner.process.pid, signal.SIGKILL)
            runner.process.wait()


def sweeper(*arguments):
    wide = {**os.environ, "COLUMNS": "300"}  # so that no cell of a table is folded
    command = [sys.executable, "-m", "sweeper", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=wide)


@pytest.mark.parametrize("kind", ["packed", pytest.param("inline", marks=pytest.mark.long)])
def test_a_paused_study_takes_no_step_and_its_time_stands_still(study_file, start, kind):
    runner = start(str(study_file(search={**PLAIN, "n_trials": 2}, executor={"kind": kind}).path))
    runner.until_step(1)
    done = sweeper("pause", "tiny")
    assert done.returncode == 0, done.stderr
    assert "done: takes no step until it is resumed" in done.stdout
    runner.until(lambda: runner.state is StudyState.PAUSED)
    before, begun = runner.database.studies.get("tiny").changes, time.monotonic()
    time.sleep(3)
    assert runner.database.studies.get("tiny").changes == before
    assert "is paused already" in sweeper("pause", "tiny").stderr
    resumed = sweeper("resume", "tiny")
    paused_s = time.monotonic() - begun
    assert resumed.returncode == 0 and "done: goes on" in resumed.stdout
    runner.finish()
    trials = runner.database.trials.all("tiny")
    assert [(trial.outcome, trial.steps) for trial in trials] == [(Outcome.COMPLETE, 6)] * 2
    study = runner.database.studies.get("tiny")
    lasted = (study.ended_at - study.created_at).total_seconds()
    assert sum(trial.train_seconds for trial in trials) < lasted - paused_s
    assert all(point.seconds < lasted - paused_s for point in runner.database.metrics.get("tiny"))


@pytest.mark.long
def test_ctrl_c_and_a_stop_are_heard_while_a_study_is_paused(study_file, start):
    runner = start(str(study_file(search={**PLAIN, "n_trials": 2}).path))
    runner.until_step(1)
    runner.ask(OrderKind.PAUSE)
    runner.process.send_signal(signal.SIGINT)
    assert runner.process.wait(PATIENCE_S) == 1
    assert runner.state is StudyState.INTERRUPTED
    again = start("--resume", "tiny")
    again.until(lambda: again.state is StudyState.RUNNING)
    again.ask(OrderKind.PAUSE)
    stopped = sweeper("stop", "tiny")
    assert stopped.returncode == 0 and "done: stops after this step" in stopped.stdout
    assert again.process.wait(PATIENCE_S) == 1
    assert again.state is StudyState.INTERRUPTED
    resume_study("tiny", force=True)
    assert [trial.outcome for trial in again.database.trials.all("tiny")] == [Outcome.COMPLETE] * 2


@pytest.mark.long
def test_a_study_killed_while_it_is_paused_is_interrupted_and_goes_on(study_file, start):
    runner = start(str(study_file(search={**PLAIN, "n_trials": 1}).path))
    runner.until_step(1)
    runner.ask(OrderKind.PAUSE)
    runner.until(lambda: runner.state is StudyState.PAUSED)
    runner.process.kill()
    runner.process.wait()
    assert not is_run(runner.database, "tiny")
    assert state_of(runner.database, runner.database.studies.get("tiny")) is StudyState.INTERRUPTED
    assert json.loads(sweeper("status", "--json").stdout)[0]["state"] == "interrupted"
    assert sweeper("pause", "tiny").returncode == 2
    resume_study("tiny", force=True)
    assert runner.state is StudyState.FINISHED


def test_the_command_line_enqueues_clones_and_shows_what_became_of_it(study_file, start):
    runner = start(str(study_file(search={**PLAIN, "n_trials": 2}, keep={"best": "all"}).path))
    runner.until_step(1)
    runner.ask(OrderKind.PAUSE)  # so that it waits for the command line
    done = sweeper("enqueue", "tiny", "learning_rate=2e-3", "lora_rank=4")
    assert done.returncode == 0, done.stderr
    assert "done: runs next, as trial" in done.stdout
    for arguments, said in (
        (("enqueue", "tiny", "learning_rate=7"), "outside the space"),
        (("enqueue", "tiny", "learning_rate=.nan"), "outside the space"),
        (("enqueue", "tiny", "learning_rate"), "write name=value"),
        (("enqueue", "tiny", "lora_rank=2", "lora_rank=4"), "given twice"),
        (("enqueue", "other", "lora_rank=2"), "no study 'other'"),
        (("clone", "tiny", "0", "--from-weights"), "saved no adapter"),
        (("clone", "tiny", "0", "colour=1"), "colour is not in the space"),
        (("stop", "tiny", "--trial", "55"), "no trial 55"),
        (("budget", "tiny"), "name what to change"),
        (("budget", "tiny", "--slots", "0"), "slots: must be a number of at least 1, or auto"),
        (("budget", "tiny", "--slots", "many"), "slots: must be a number of at least 1, or auto"),
        (("budget", "tiny", "--timeout", "soon"), "must be a duration"),
        (("budget", "tiny", "--epochs", "-3"), "max_epochs_total: "),
    ):
        refused = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "300"})
        assert refused.exit_code == 2, arguments
        assert said in refused.stderr, refused.stderr
    assert sweeper("budget", "tiny", "--trials", "3", "--timeout", "2h", "--epochs", "none").returncode == 0
    assert sweeper("resume", "tiny").returncode == 0
    runner.finish()
    cloned = sweeper("clone", "tiny", "0", "learning_rate=1e-3", "--from-weights")
    assert cloned.returncode == 0 and "`sweeper resume tiny`" in cloned.stdout
    asked = json.loads(sweeper("orders", "tiny", "--json").stdout)
    assert [(order["kind"], order["state"]) for order in asked] == [
        ("clone", "waiting"),
        ("resume", "done"),
        ("budget", "done"),
        ("enqueue", "done"),
        ("pause", "done"),
    ]
    assert "from its weights" in sweeper("orders", "tiny").stdout
    resume_study("tiny", force=True)
    trials = runner.database.trials.all("tiny")
    assert len(trials) == 5
    assert (
        sum(trial.parameters["learning_rate"] == 2e-3 and trial.parameters["lora_rank"] == 4 for trial in trials) == 1
    )
    assert [(trial.clones, trial.parameters["learning_rate"]) for trial in trials[-1:]] == [(0, 1e-3)]


def test_orders_survive_a_kill_and_are_done_once(study_file, start):
    runner = start(str(study_file(search={**PLAIN, "n_trials": 2}).path))
    runner.until_step(1)
    runner.ask(OrderKind.PAUSE)
    runner.until(lambda: runner.state is StudyState.PAUSED)
    os.kill(runner.process.pid, signal.SIGSTOP)  # it takes no order any more
    home = Home.current()
    for rate in (2e-3, 4e-3):
        values = {"parameters": {"learning_rate": rate}}
        give(home, runner.database, "tiny", OrderKind.ENQUEUE, actor="ada", data=values)
    runner.process.kill()
    runner.process.wait()
    again = start("--resume", "tiny")
    again.until(lambda: not again.database.orders.waiting("tiny"))
    again.process.kill()  # the orders are answered, their trials are not at their end
    again.process.wait()
    resume_study("tiny", force=True)
    complete = [trial for trial in again.database.trials.all("tiny") if trial.outcome is Outcome.COMPLETE]
    rates = [trial.parameters["learning_rate"] for trial in complete]
    assert (rates.count(2e-3), rates.count(4e-3), len(rates)) == (1, 1, 4)
    states = [order.state for order in again.database.orders.all("tiny")]
    assert states == [OrderState.DONE] * 3


@pytest.mark.long
def test_a_trial_on_two_processes_is_paused_and_stopped(study_file, start, monkeypatch):
    monkeypatch.setenv("PATIENCE_S", "0.3")
    study = study_file(
        backend={"kind": "fsdp", "processes": 2},
        search={**PLAIN, "n_trials": 2, "space": {"learning_rate": 1e-2, "batch_size": 8, "epochs": 3}},
        evaluation={"points": 1, "metrics": ["perplexity"]},
    )
    runner = start(str(study.path))
    runner.until(lambda: runner.exists and runner.database.trials.all("tiny"))
    assert runner.ask(OrderKind.PAUSE).state is OrderState.DONE
    runner.until(lambda: runner.state is StudyState.PAUSED)
    before = runner.database.studies.get("tiny").changes
    time.sleep(2)  # both processes are told several times that the answer takes longer
    assert runner.database.studies.get("tiny").changes == before
    given = give(Home.current(), runner.database, "tiny", OrderKind.STOP_TRIAL, actor="ada", number=0)
    runner.ask(OrderKind.RESUME)
    assert await_answer(runner.database, "tiny", given.id, PATIENCE_S).state is OrderState.DONE
    runner.finish()
    stopped, complete = runner.database.trials.all("tiny")
    assert (stopped.outcome, stopped.reason) == (Outcome.PRUNED, "stopped by hand")
    assert (complete.outcome, complete.steps) == (Outcome.COMPLETE, 9)
