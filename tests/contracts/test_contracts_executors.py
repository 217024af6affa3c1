"""What every executor promises (see ``sweeper.executors.base.Executor``), asked of each of them."""

from __future__ import annotations

import pytest
from optuna.trial import TrialState
from tiny import Curve, write_rows

from sweeper.config.trial import Outcome, TrialSpec
from sweeper.errors import DataError
from sweeper.executors.base import Silent, StopRequest
from sweeper.executors.recorder import read_result
from sweeper.executors.specification import hyperparameters
from sweeper.paths import Home
from sweeper.run import EXECUTORS
from sweeper.training.base_model import load_base
from sweeper.training.trial import train_trial


@pytest.fixture(params=sorted(EXECUTORS))
def kind(request):
    return request.param


@pytest.fixture
def run(kind, begin):
    """Run a study's trials with the executor under test and return the study's context."""

    def conduct(**parts):
        executor = {"kind": kind, "device": "cpu", **parts.pop("executor", {})}
        context = begin(executor=executor, **parts)
        EXECUTORS[kind]().run(context)
        return context

    return conduct


class Watching(Silent):
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


def test_every_trial_is_recorded_from_its_start_to_its_end(kind, begin):
    class Recorded(Watching):
        def trial_started(self, candidate, spec, total_steps):
            super().trial_started(candidate, spec, total_steps)
            assert self.context.database.trials.get("tiny", spec.number).outcome is None

        def trial_ended(self, result):
            super().trial_ended(result)
            assert read_result(self.context.paths.trial(result.number)) == result
            assert self.context.database.trials.get("tiny", result.number).outcome is result.outcome
            assert self.context.search.study.get_trials()[result.number].state.is_finished()

    watching = Recorded()
    watching.context = begin(listener=watching, executor={"kind": kind})
    EXECUTORS[kind]().run(watching.context)
    assert [number for (number,) in watching.of("started")] == [0, 1, 2, 3]
    assert [number for number, _ in watching.of("ended")] == [0, 1, 2, 3]
    assert {number for number, _ in watching.of("reported")} == {0, 1, 2, 3}
    assert watching.total_steps == 6
    for record in records(watching.context):
        points = watching.context.database.metrics.get("tiny", number=record.number, name="loss")
        assert [point.step for point in points] == list(range(1, record.steps + 1))
    assert watching.context.search.ask() is None


@pytest.mark.parametrize("adapter", ["lora", "qlora"])
def test_a_result_depends_on_the_specification_alone(run, adapter):
    context = run(adapter={"kind": adapter}, search={"pruner": "none"})
    config = context.config
    last = records(context)[-1]
    folder = context.paths.trial(last.number)
    spec = TrialSpec.model_validate_json(folder.spec.read_text())
    alone = load_base(context.model_folder, config.model, config.adapter, "cpu")
    curve = Curve()
    result = train_trial(spec.model_copy(update={"folder": folder.folder / "again"}), alone, curve, last.micro_batch)
    assert (result.value, result.adapter_sha256) == (last.value, last.adapter_sha256)
    losses = context.database.metrics.get("tiny", number=last.number, name="loss")
    assert [point.value for point in losses] == curve.of("loss")


def test_a_trial_that_fails_ends_alone(run):
    # One of the optimizers needs a package that is not installed.
    space = {"optim": ["adamw_torch", "lomo"], "batch_size": 8, "epochs": 1}
    enqueue = [{"optim": "lomo"}, {"optim": "adamw_torch"}]
    failed, complete = records(run(search={"space": space, "enqueue": enqueue, "n_trials": 2, "pruner": "none"}))
    assert complete.outcome is Outcome.COMPLETE
    assert failed.outcome is Outcome.FAILED
    assert "lomo" in failed.reason
    folder = Home.current().study("tiny").trial(failed.number).folder
    assert "Traceback" in (folder / "error.txt").read_text()
    assert not (folder / "adapter").exists()


def test_a_fault_of_the_users_ends_the_study_and_can_be_taken_up(begin, kind, tmp_path):
    long = write_rows(tmp_path / "long.jsonl", [{"prompt": f"{n} " * 99, "completion": " 1"} for n in range(9)])
    context = begin(executor={"kind": kind}, data={"train": str(long)})
    with pytest.raises(DataError, match="no train row has anything to learn"):
        EXECUTORS[kind]().run(context)
    (record,) = records(context)
    assert record.outcome is None
    assert context.search.study.get_trials()[0].state is TrialState.RUNNING


def test_a_request_to_stop_ends_the_step_and_returns(kind, begin):
    watching = Watching(stop_at=(1, 3))
    context = begin(listener=watching, stop=watching.stop, executor={"kind": kind}, search={"pruner": "none"})
    EXECUTORS[kind]().run(context)
    assert watching.of("ended") == [(0, Outcome.COMPLETE), (1, Outcome.INTERRUPTED)]
    stopped = context.database.trials.get("tiny", 1)
    assert (stopped.outcome, stopped.steps) == (Outcome.INTERRUPTED, 3)
    assert not context.paths.trial(1).adapter.exists()
    assert context.search.interrupted() == [1]


def test_a_stop_before_the_first_trial_starts_none(kind, begin):
    context = begin(executor={"kind": kind})
    context.stop.set()
    EXECUTORS[kind]().run(context)
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
