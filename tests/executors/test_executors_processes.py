"""Trials in processes of their own: two real processes over gloo, against one process with TRL alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import tiny
from safetensors.torch import load_file
from variants import mostly_long

from sweeper.config.adapter import LoRA, QLoRA
from sweeper.config.backend import FSDP, TRL, DeepSpeed
from sweeper.config.trial import Decision, Outcome, TrialResult
from sweeper.errors import DataError
from sweeper.executors.distributed import launcher as processes
from sweeper.executors.distributed.launcher import LaunchPolicy
from sweeper.executors.lifecycle.recorder import read_result
from sweeper.paths import TrialPaths
from sweeper.training.base_model import load_base
from sweeper.training.resumable_trainer import CheckpointPolicy
from sweeper.training.trial import train_trial

HERE = Path(__file__).parent
TWO = {
    "zero-2": (DeepSpeed(stage=2, processes=2), LoRA()),
    "zero-2 4-bit": (DeepSpeed(stage=2, processes=2), QLoRA()),
    "zero-3": (DeepSpeed(stage=3, processes=2), LoRA()),
    "zero-3 4-bit": (DeepSpeed(stage=3, processes=2), QLoRA()),
    "fsdp": (FSDP(processes=2), LoRA()),
}


@pytest.fixture
def spec(tiny_model, tmp_path):
    """Return a writer of trials: two epochs of 3 + 3 + 3 + 1 rows, which two processes cannot share evenly."""

    def write(backend, adapter=None, **more):
        asked = {"batch_size": 3, "points": 2, **more}
        trial = tiny.trial_spec(tiny_model, tmp_path, adapter=adapter, rows=10, **asked)
        return trial.model_copy(update={"backend": backend, "micro_batch": 2})

    return write


@pytest.fixture
def train(monkeypatch):
    """Train a trial in watched processes; return its result and its curve."""

    def run(spec, misfortune="", curve=None, policy=None):
        monkeypatch.setattr(processes, "WORKER", (sys.executable, str(HERE / "watched_worker.py")))
        monkeypatch.setenv("BREAK", misfortune)
        curve = curve or tiny.Curve()
        return processes.train_in_processes(spec, curve, policy), curve

    return run


@pytest.fixture
def alone(tiny_model, tmp_path):
    """Train the same trial in this process with TRL alone; return its curve and its adapter's folder."""

    def run(spec):
        curve, folder = tiny.Curve(), tmp_path / "alone"
        base = load_base(tiny_model, spec.model, spec.adapter, "cpu")
        train_trial(spec.model_copy(update={"folder": folder}), base, curve, 2)
        return curve, TrialPaths(folder).adapter

    return run


def left_behind(folder: Path) -> list[int]:
    """Processes of a trial that still run."""
    noted = [json.loads(path.read_text())["process"] for path in folder.glob("facts-*.json")]
    assert noted
    return [process for process in noted if psutil.pid_exists(process)]


@pytest.mark.parametrize("kind", mostly_long(TWO, "zero-2 4-bit"))
def test_two_processes_train_what_one_does(kind, spec, train, alone):
    backend, adapter = TWO[kind]
    trial = spec(backend, adapter)
    result, curve = train(trial)
    expected, adapter_alone = alone(trial)
    assert result.outcome is Outcome.COMPLETE, result.reason
    assert result == read_result(TrialPaths(trial.folder))
    assert (result.steps, result.micro_batch) == (8, 2)
    for name in ("loss", "grad_norm", "learning_rate", "eval_loss"):
        assert curve.of(name) == pytest.approx(expected.of(name), rel=1e-4), name
    ours, theirs = (
        load_file(folder / "adapter_model.safetensors") for folder in (TrialPaths(trial.folder).adapter, adapter_alone)
    )
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        assert weight.shape == theirs[name].shape
        assert (weight - theirs[name]).abs().max() < 1e-3, name
    assert not left_behind(trial.folder)
    facts = [json.loads((trial.folder / f"facts-{rank}.json").read_text()) for rank in (0, 1)]
    if isinstance(backend, DeepSpeed):
        assert {(one["engine"], one["stage"]) for one in facts} == {("DeepSpeedEngine", backend.stage)}
        assert {one["spread"] for one in facts} == {backend.stage == 3}
    else:
        assert all(one["dtensors"] for one in facts)
        assert sum(one["held"] for one in facts) < 1.1 * 2 * min(one["held"] for one in facts)


@pytest.mark.long
def test_a_pruned_trial_ends_in_the_same_step_on_all_ranks(spec, train):
    trial = spec(FSDP(processes=2), metric="exact_match")
    result, _ = train(trial, curve=tiny.Curve(Decision.PRUNE, at=2))
    assert result.outcome is Outcome.PRUNED
    ends = [TrialResult.model_validate_json((trial.folder / f"result-{n}.json").read_text()) for n in (0, 1)]
    assert [(end.outcome, end.steps) for end in ends] == [(Outcome.PRUNED, 2)] * 2
    assert not TrialPaths(trial.folder).adapter.exists()


@pytest.mark.long
def test_where_one_rank_runs_out_of_memory_the_trial_begins_again_with_fewer_rows(spec, train, alone):
    trial = spec(DeepSpeed(stage=2, processes=2), batch_size=6).model_copy(update={"micro_batch": 3})
    told = []

    class Told(tiny.Curve):
        def __call__(self, step, metrics):
            told.append((step, "loss" in metrics))
            return super().__call__(step, metrics)

    result, curve = train(trial, "memory", Told())
    assert result.outcome is Outcome.COMPLETE, result.reason
    assert result.micro_batch == 1
    assert len(told) == len(set(told))
    assert curve.of("loss") == pytest.approx(alone(trial)[0].of("loss"), rel=1e-4)


@pytest.mark.parametrize(
    "misfortune, reason",
    [
        pytest.param("crash", "RuntimeError: rank 1 broke", marks=pytest.mark.long),
        ("kill", "process 1 of the trial was killed"),
    ],
)
def test_a_rank_that_breaks_ends_the_trial(spec, train, misfortune, reason):
    trial = spec(FSDP(processes=2))
    result, _ = train(trial, misfortune)
    assert result.outcome is Outcome.FAILED
    assert result.reason.startswith(reason)
    assert read_result(TrialPaths(trial.folder)) == result
    assert not left_behind(trial.folder)


@pytest.mark.long
def test_a_trial_that_is_killed_goes_on_from_its_checkpoint(spec, train, alone, monkeypatch):
    monkeypatch.setenv("BREAK_RANK", "0")
    monkeypatch.setenv("BREAK_STEP", "5")
    asked, notes, recorded = spec(TRL(), lora_dropout=0.2), [], []
    told = tiny.Curve()
    checkpoints = CheckpointPolicy(0.0, before=lambda: recorded.append(max(told.steps)))
    result, curve = train(
        asked, "kill once", told, LaunchPolicy(max_retries=1, checkpoints=checkpoints, note=notes.append)
    )
    assert result.outcome is Outcome.COMPLETE, result.reason
    (note,) = notes
    assert note.startswith("trial 0 goes on from its checkpoint (retry 1 of 1): process 0 of the trial was killed by")
    assert recorded == [1, 2, 3, 4, 5, 6, 7, 8, 8]  # before each checkpoint and the result: no step left out
    expected, _ = alone(asked)
    assert (curve.steps, curve.evaluations) == (expected.steps, expected.evaluations)
    assert not TrialPaths(asked.folder).is_frozen
    assert read_result(TrialPaths(asked.folder)) == result


@pytest.fixture
def brittle(monkeypatch, tiny_model, tmp_path):
    """Pretend to train a trial in a process that breaks; return its result, the notes and what the attempts started."""
    asked = tiny.trial_spec(tiny_model, tmp_path)

    def run(misfortune, **policy):
        monkeypatch.setattr(processes, "WORKER", (sys.executable, str(HERE / "brittle_worker.py")))
        monkeypatch.setenv("BREAK", misfortune)
        notes, curve = [], tiny.Curve()
        result = processes.train_in_processes(asked, curve, LaunchPolicy(note=notes.append, **policy))
        attempts = [json.loads(line) for line in (asked.folder / "attempts.jsonl").read_text().splitlines()]
        assert not [one["process"] for one in attempts if psutil.pid_exists(one["process"])]
        assert not [one["child"] for one in attempts if running(one["child"])]
        assert read_result(TrialPaths(asked.folder)) == result
        return result, notes, attempts, curve

    return run


def running(pid):
    """Whether a process still runs; one that nobody waits for has ended too."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_process_that_hangs_is_ended_with_all_it_started_and_tried_again(brittle, tmp_path):
    result, notes, attempts, curve = brittle("hang once", max_retries=1, stall_timeout_s=5)
    assert (result.outcome, len(attempts)) == (Outcome.COMPLETE, 2)
    assert sorted(curve.steps) == [1, 2, 3, 4]
    (note,) = notes
    assert note.startswith("trial 0 begins again (retry 1 of 1): no step for 5 s; where it hung is in ")
    log = TrialPaths(tmp_path / "trials" / "00000").log(0)
    assert str(log) in note
    assert "misfortune" in log.read_text()


def test_what_is_lost_too_often_has_failed_with_the_reason(brittle):
    result, notes, attempts, _ = brittle("kill", max_retries=2)
    assert (result.outcome, len(attempts), len(notes)) == (Outcome.FAILED, 3, 2)
    assert result.reason.startswith("process 0 of the trial was killed by SIGKILL")
    assert result.reason.endswith("; so it was 3 times in a row")


def test_a_process_that_ends_by_itself_is_not_tried_again(brittle):
    result, notes, attempts, _ = brittle("exit", max_retries=2)
    assert (result.outcome, len(attempts), notes) == (Outcome.FAILED, 1, [])
    assert "ended with exit code 7" in result.reason


def test_a_process_that_takes_long_to_be_answered_does_not_hang(brittle, monkeypatch):
    """Whoever runs the study lets it stand still for longer than the timeout."""
    original = tiny.Curve.__call__

    def slowly(curve, step, metrics):
        time.sleep(6 if step == 3 else 0)
        return original(curve, step, metrics)

    monkeypatch.setattr(tiny.Curve, "__call__", slowly)
    result, notes, _, _ = brittle("not", stall_timeout_s=5)
    assert (result.outcome, notes) == (Outcome.COMPLETE, [])


@pytest.mark.long
def test_the_users_fault_is_raised(spec, train):
    trial = spec(FSDP(processes=1))
    tiny.write_rows(trial.train, [{"prompt": "one " * 99, "completion": "1"}])
    with pytest.raises(DataError, match="max_length"):
        train(trial)


def test_no_process_outlives_the_one_that_runs_the_study(spec, tmp_path):
    trial = spec(FSDP(processes=2))
    (tmp_path / "spec.json").write_text(trial.model_dump_json())
    script = [sys.executable, str(HERE / "abandoned_parent.py"), str(tmp_path / "spec.json")]
    with subprocess.Popen(script, env={**os.environ, "BREAK": "hang"}) as parent:
        while len(list(trial.folder.glob("facts-*.json"))) < 2:
            assert parent.poll() is None
            time.sleep(0.1)
        parent.kill()
    deadline = time.monotonic() + 10
    while left_behind(trial.folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left_behind(trial.folder)
