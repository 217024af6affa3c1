"""What every executor promises (see ``sweeper.executors.base.Executor``), asked of each of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from optuna.trial import TrialState
from plain_trl import trl_curve
from safetensors.torch import load_file
from tiny import Curve, write_rows
from variants import mostly_long

from sweeper.config.trial import Outcome, TrialSpec
from sweeper.errors import DataError
from sweeper.executors.lifecycle.claims import ask
from sweeper.executors.lifecycle.recorder import read_result
from sweeper.executors.lifecycle.trial_spec import hyperparameters
from sweeper.executors.listener import Listener
from sweeper.executors.stop_request import StopRequest
from sweeper.paths import Home
from sweeper.study.run import EXECUTORS
from sweeper.training.base_model import load_base
from sweeper.training.trial import train_trial

IN_PROCESS = ("inline", "packed")
IN_WORKERS = ("per_gpu", "ray")


def test_every_executor_is_among_those_that_are_asked():
    assert sorted(EXECUTORS) == sorted((*IN_PROCESS, *IN_WORKERS))


@pytest.fixture(params=IN_PROCESS)
def kind(request):
    """The executors that train in this process, of which everything is asked; those with workers train as packed."""
    return request.param


@pytest.fixture(
    params=[
        *IN_PROCESS,
        pytest.param("per_gpu", marks=pytest.mark.long),
        pytest.param("ray", marks=pytest.mark.xdist_group("ray")),
    ]
)
def executor(request):
    """Every executor, as a study file asks for it."""
    kind = request.param
    more = {
        "per_gpu": lambda: {"devices": 2, "slots": 1},
        "ray": lambda: {"address": request.getfixturevalue("two_nodes").address, "slots": 1},
    }
    return {"kind": kind, "device": "cpu", **more.get(kind, dict)()}


@pytest.fixture
def run(kind, begin):
    """Run a study's trials with the executor under test and return the study's context."""

    def conduct(**parts):
        executor = {"kind": kind, "device": "cpu", **parts.pop("executor", {})}
        context = begin(executor=executor, **parts)
        EXECUTORS[kind]().run(context)
        return context

    return conduct


class Watching(Listener):
    """Sees where a trial is kept at each moment of its life; may ask to stop."""

    def __init__(self, stop_at=None):
        self.stop_at = stop_at
        self.stop = StopRequest()
        self.context = None
        self.seen = []

    def trial_started(self, candidate, spec, total_steps):
        self.total_steps = total_steps
        self.seen.append(("started", candidate.number))

    def trial_reported(self, number, step, metrics):
        self.seen.append(("reported", number, step))
        if (number, step) == self.stop_at:
            self.stop.set()

    def trial_ended(self, result):
        self.seen.append(("ended", result.number, result.outcome))

    def of(self, what):
        return [event[1:] for event in self.seen if event[0] == what]


def records(context):
    return context.database.trials.all(context.config.name)


def test_every_trial_is_recorded_from_its_start_to_its_end(executor, begin):
    class Recorded(Watching):
        def trial_started(self, candidate, spec, total_steps):
            super().trial_started(candidate, spec, total_steps)
            outcome = self.context.database.trials.get("tiny", spec.number).outcome
            assert outcome is None or executor["kind"] in IN_WORKERS  # which may have ended it before it is seen here

        def trial_ended(self, result):
            super().trial_ended(result)
            assert read_result(self.context.paths.trial(result.number)) == result
            assert self.context.database.trials.get("tiny", result.number).outcome is result.outcome
            if executor["kind"] in IN_PROCESS:
                assert self.context.search.study.get_trials()[result.number].state.is_finished()

    watching = Recorded()
    watching.context = begin(listener=watching, executor=executor)
    EXECUTORS[executor["kind"]]().run(watching.context)
    assert sorted(number for (number,) in watching.of("started")) == [0, 1, 2, 3]
    assert sorted(number for number, _ in watching.of("ended")) == [0, 1, 2, 3]
    assert {number for number, _ in watching.of("reported")} == {0, 1, 2, 3}
    assert watching.total_steps == 6
    assert all(trial.state.is_finished() for trial in watching.context.search.study.get_trials())
    for record in records(watching.context):
        points = watching.context.database.metrics.get("tiny", number=record.number, name="loss")
        assert [point.step for point in points] == list(range(1, record.steps + 1))
        told = [step for number, step in watching.of("reported") if number == record.number]
        assert sorted(set(told)) == list(range(1, record.steps + 1))
    assert ask(watching.context) is None


SIX = (
    {"learning_rate": 5e-3, "lora_rank": 4, "batch_size": 4, "epochs": 9},
    {"learning_rate": 1e-2, "lora_rank": 8, "batch_size": 4, "epochs": 9, "lora_dropout": 0.1},
    {"learning_rate": 2e-3, "lora_rank": 2, "batch_size": 8, "epochs": 17, "lora_alpha": 16, "weight_decay": 0.1},
    {"learning_rate": 1e-3, "lora_rank": 16, "batch_size": 3, "epochs": 7, "lr_scheduler": "cosine"},
    {"learning_rate": 3e-3, "lora_rank": 1, "batch_size": 8, "epochs": 17, "max_grad_norm": 0.3},
    {"learning_rate": 1e-3, "lora_rank": 4, "batch_size": 2, "epochs": 5, "lora_dropout": 0.3, "warmup_ratio": 0.2},
)
"""Different in everything that a study may search; each takes more than 50 steps."""


@pytest.fixture
def six(run, kind):
    """Run six different trials with the executor under test, all at once where it can; return the study's context."""

    def conduct(adapter, **parts):
        space = {name: sorted({one[name] for one in SIX if name in one}) for name in {n for one in SIX for n in one}}
        space |= {"lora_alpha": [8, 16], "weight_decay": [0.0, 0.1], "lora_dropout": [0.0, 0.1, 0.3]}
        space |= {"lr_scheduler": ["linear", "cosine"], "max_grad_norm": [0.3, 1.0], "warmup_ratio": [0.0, 0.2]}
        first = {name: values[0] for name, values in space.items()}
        first |= {"max_grad_norm": 1.0, "lr_scheduler": "linear"}
        search = {"space": space, "enqueue": [{**first, **one} for one in SIX], "n_trials": 6}
        slots = {"slots": 6} if kind == "packed" else {}
        return run(
            adapter={"kind": adapter},
            search={**search, "pruner": "none", "confirm": 0},
            executor={**slots, "micro_batch": 64},
            **parts,
        )

    return conduct


def curves(context):
    """The specification, the losses and the gradient norms of every trial."""
    found = []
    for record in records(context):
        assert record.outcome is Outcome.COMPLETE
        spec = TrialSpec.model_validate_json(context.paths.trial(record.number).spec.read_text())
        points = {
            name: [p.value for p in context.database.metrics.get("tiny", number=record.number, name=name)]
            for name in ("loss", "grad_norm", "learning_rate")
        }
        found.append((spec, points))
    return found


@pytest.mark.parametrize("kind", ["packed", pytest.param("inline", marks=pytest.mark.long)], indirect=True)
def test_every_trial_follows_the_curve_of_trls_own_trainer(six):
    for spec, points in curves(six("lora")):
        plain = trl_curve(spec)
        assert len(points["loss"]) == len(plain["loss"]) > 50
        assert points["loss"] == pytest.approx(plain["loss"], rel=1e-4)
        assert points["grad_norm"] == pytest.approx(plain["grad_norm"], rel=1e-2)
        assert points["learning_rate"] == pytest.approx(plain["learning_rate"], rel=1e-6)


@pytest.mark.parametrize("kind", ["packed", pytest.param("inline", marks=pytest.mark.long)], indirect=True)
def test_in_four_bits_and_bfloat16_trials_differ_from_trl_as_two_runs_of_trl_do(six, tiny_model):
    """Two runs of TRL that split the batch otherwise differ by rounding; so may a trial from either."""

    def distance(one, other):
        return np.abs(np.array(one["loss"]) - np.array(other["loss"])).mean()

    ours, theirs = [], []
    for spec, points in curves(six("qlora", model={"name": str(tiny_model), "dtype": "bfloat16"})):
        if spec.hyperparameters.lora_dropout == 0 and spec.hyperparameters.batch_size % 2 == 0:
            plain, again = (trl_curve(spec, dtype="bfloat16", parts=parts) for parts in (1, 2))
            ours.append(distance(points, plain))
            theirs.append(distance(again, plain))
    assert len(ours) == 3
    assert np.mean(ours) < 2 * np.mean(theirs)
    assert 0 < np.mean(theirs) < 0.05


@pytest.mark.parametrize("adapter", ["lora", "qlora"])
def test_a_result_depends_on_the_specification_alone(run, adapter):
    context = run(adapter={"kind": adapter}, search={"pruner": "none"})
    last = records(context)[-1]
    folder = context.paths.trial(last.number)
    spec = TrialSpec.model_validate_json(folder.spec.read_text())
    alone = load_base(spec.model_folder, spec.model, spec.adapter, "cpu")
    curve = Curve()
    result = train_trial(spec.model_copy(update={"folder": folder.folder / "again"}), alone, curve, last.micro_batch)
    assert last.value == pytest.approx(result.value, rel=1e-5)  # sums over rows are rounded otherwise beside others
    losses = context.database.metrics.get("tiny", number=last.number, name="loss")
    assert [point.value for point in losses] == pytest.approx(curve.of("loss"), rel=1e-5)
    kept, again = (
        load_file(place / "adapter" / "adapter_model.safetensors") for place in (folder.folder, folder.folder / "again")
    )
    assert kept.keys() == again.keys()
    assert all(torch.allclose(kept[name], again[name], atol=1e-4) for name in kept)


def test_a_trial_that_fails_ends_alone(run):
    # One of the optimizers needs a package that is not installed.
    space = {"optim": ["adamw_torch", "grokadamw"], "batch_size": 8, "epochs": 1}
    enqueue = [{"optim": "grokadamw"}, {"optim": "adamw_torch"}]
    failed, complete = records(run(search={"space": space, "enqueue": enqueue, "n_trials": 2, "pruner": "none"}))
    assert complete.outcome is Outcome.COMPLETE
    assert failed.outcome is Outcome.FAILED
    assert "grokadamw" in failed.reason
    folder = Home.current().study("tiny").trial(failed.number).folder
    assert "Traceback" in (folder / "error.txt").read_text()
    assert not (folder / "adapter").exists()


@pytest.mark.parametrize("executor", mostly_long([*IN_PROCESS, *IN_WORKERS], *IN_PROCESS), indirect=True)
def test_a_fault_of_the_users_ends_the_study_and_can_be_taken_up(begin, executor, tmp_path):
    long = write_rows(tmp_path / "long.jsonl", [{"prompt": f"{n} " * 99, "completion": " 1"} for n in range(9)])
    context = begin(executor=executor, data={"train": str(long)})
    with pytest.raises(DataError, match="no train row has anything to learn"):
        EXECUTORS[executor["kind"]]().run(context)
    found, trials = records(context), context.search.study.get_trials()
    assert found and all(record.outcome in (None, Outcome.INTERRUPTED) for record in found)
    if executor["kind"] in IN_WORKERS:  # each of them may find it, in what another left or in a trial of its own
        assert any(trial.state in (TrialState.RUNNING, TrialState.WAITING) for trial in trials)
    else:
        assert len(found) == 1 and trials[0].state is TrialState.RUNNING


def test_a_request_to_stop_ends_the_step_and_returns(kind, begin):
    watching = Watching(stop_at=(1, 3))
    one_at_a_time = {"kind": kind, **({"slots": 1} if kind == "packed" else {})}
    context = begin(listener=watching, stop=watching.stop, executor=one_at_a_time, search={"pruner": "none"})
    EXECUTORS[kind]().run(context)
    assert watching.of("ended") == [(0, Outcome.COMPLETE), (1, Outcome.INTERRUPTED)]
    stopped = context.database.trials.get("tiny", 1)
    assert (stopped.outcome, stopped.steps) == (Outcome.INTERRUPTED, 3)
    assert not context.paths.trial(1).adapter.exists()
    assert context.search.interrupted() == [1]


@pytest.mark.long
def test_a_request_to_stop_reaches_every_worker_and_each_trial_can_go_on(begin, tmp_path):
    """Of an executor with workers: they put their trials on disk, from where the next ones go on."""
    watching = Watching()
    watching.trial_reported = lambda number, step, metrics: watching.stop.set()
    executor = {"kind": "per_gpu", "device": "cpu", "devices": 2, "slots": 2}
    space = {"learning_rate": [1e-3, 2e-3], "batch_size": 1, "epochs": 40}
    search = {"space": space, "n_trials": 2, "pruner": "none", "confirm": 0}
    context = begin(listener=watching, stop=watching.stop, executor=executor, search=search)
    EXECUTORS["per_gpu"]().run(context)
    stopped = [record for record in records(context) if record.outcome is Outcome.INTERRUPTED]
    assert stopped
    assert all(record.steps < record.total_steps for record in stopped)
    assert any(record.steps for record in stopped)
    assert all(context.paths.trial(record.number).is_frozen for record in stopped)
    context.stop = StopRequest()
    context.listener = Listener()
    EXECUTORS["per_gpu"]().run(context)
    assert [record.outcome for record in records(context)] == [Outcome.COMPLETE] * 2  # under the same numbers
    for record in records(context):
        points = context.database.metrics.get("tiny", number=record.number, name="loss")
        assert [point.step for point in points] == list(range(1, record.total_steps + 1))


def test_a_stop_before_the_first_trial_starts_none(executor, begin):
    context = begin(executor=executor)
    context.stop.set()
    EXECUTORS[executor["kind"]]().run(context)
    assert records(context) == ()


def test_trials_use_what_the_sampler_chose(run):
    context = run(search={"pruner": "none"})
    for record, trial in zip(records(context), context.search.study.get_trials(), strict=True):
        chosen = hyperparameters({**trial.params, "batch_size": 8, "epochs": 2, "lora_alpha": 8, "lora_dropout": 0.0})
        assert record.parameters["learning_rate"] == chosen.learning_rate
        assert record.parameters["lora_rank"] == chosen.lora_rank
        assert record.value == trial.value


def test_weak_trials_are_pruned(run):
    space = {"learning_rate": [1e-7, 1e-2], "batch_size": 8, "epochs": 2}
    enqueue = [{"learning_rate": 1e-2}, {"learning_rate": 1e-7}]
    context = run(search={"space": space, "enqueue": enqueue, "n_trials": 2})
    good, weak = records(context)
    assert good.outcome is Outcome.COMPLETE
    assert (weak.outcome, weak.reason) == (Outcome.PRUNED, "worse than other trials at the same progress")
    assert weak.steps < weak.total_steps
    assert not context.paths.trial(weak.number).adapter.exists()
