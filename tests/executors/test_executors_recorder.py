"""The pruning seam bound to database and search, and what ``reclaim`` makes of a process that died."""

from __future__ import annotations

import math

import optuna
import pytest
from optuna.trial import TrialState

from sweeper.config.trial import Decision, Outcome, TrialResult
from sweeper.executors.lifecycle.claims import ask
from sweeper.executors.lifecycle.recorder import Recorder, finish, read_result
from sweeper.executors.lifecycle.recovery import reclaim
from sweeper.executors.lifecycle.trial_spec import specification
from sweeper.executors.listener import Listener
from sweeper.executors.stop_request import StopRequest
from sweeper.files.atomic import write_atomically
from sweeper.paths import Home
from sweeper.search.storages.open import open_storage
from sweeper.store import TrialKind
from sweeper.study.run import resume_study

AT = "2026-01-01T00:00:00+00:00"
THRESHOLD = {"pruner": {"kind": "threshold", "upper": 5.0}}


def start(context):
    candidate = ask(context)
    spec = specification(context, candidate)
    recorder = Recorder(context, candidate, spec)
    recorder.start()
    return recorder, spec


def result(number, outcome=Outcome.COMPLETE, value=1.0, **more):
    return TrialResult(
        number=number,
        outcome=outcome,
        value=value if outcome is Outcome.COMPLETE else None,
        reason=None if outcome is Outcome.COMPLETE else "for the test",
        started_at=AT,
        finished_at=AT,
        **more,
    )


def optuna_trials(name="tiny"):
    study = optuna.load_study(study_name=name, storage=open_storage(Home.current().database))
    return study.get_trials(deepcopy=False)


def test_a_trial_is_in_the_database_before_it_trains(begin):
    context = begin()
    _, spec = start(context)
    record = context.database.trials.get("tiny", spec.number)
    assert (record.outcome, record.kind, record.seed) == (None, TrialKind.SAMPLED, spec.seed)
    assert record.parameters["learning_rate"] == spec.hyperparameters.learning_rate


def test_every_metric_is_kept_with_its_step(begin):
    context = begin()
    recorder, spec = start(context)
    assert recorder(1, {"loss": 6.0, "learning_rate": 1e-3, "progress": 0.25}) is Decision.CONTINUE
    assert recorder(2, {"loss": math.nan, "progress": 0.5}) is Decision.CONTINUE
    assert recorder(2, {"eval_loss": 4.0, "perplexity": math.exp(4.0), "progress": 0.5}) is Decision.CONTINUE
    recorder.end(result(spec.number, epochs_trained=2.0))
    points = {(p.step, p.name): p.value for p in context.database.metrics.get("tiny", number=0)}
    assert math.isnan(points.pop((2, "loss")))
    assert points == {
        (1, "loss"): 6.0,
        (1, "learning_rate"): 1e-3,
        (2, "eval_loss"): 4.0,
        (2, "perplexity"): math.exp(4.0),
    }
    assert optuna_trials()[0].intermediate_values == {50: 4.0}
    assert context.search.epochs_spent == 2.0


def test_metrics_are_written_while_the_trial_runs(begin, monkeypatch):
    context = begin()
    recorder, _ = start(context)
    monkeypatch.setattr("sweeper.executors.lifecycle.recorder._FLUSH_S", 0.0)
    recorder(1, {"loss": 6.0, "progress": 0.25})
    assert [point.value for point in context.database.metrics.get("tiny")] == [6.0]


def test_the_pruner_is_asked_at_evaluations_by_the_deciding_metric(begin):
    context = begin(search=THRESHOLD)
    recorder, _ = start(context)
    assert recorder(1, {"loss": 9.0, "progress": 0.3}) is Decision.CONTINUE
    assert recorder(1, {"eval_loss": 4.9, "perplexity": 134.0, "progress": 0.3}) is Decision.CONTINUE
    assert recorder(2, {"eval_loss": 5.1, "progress": 0.6}) is Decision.PRUNE


def test_a_request_to_stop_interrupts_unless_the_trial_has_ended_anyway(begin):
    context = begin(search=THRESHOLD)
    recorder, _ = start(context)
    context.stop.set()
    assert recorder(2, {"loss": 4.0, "progress": 0.99}) is Decision.INTERRUPT
    assert recorder(2, {"eval_loss": 9.0, "progress": 0.99}) is Decision.INTERRUPT
    assert recorder(3, {"loss": 4.0, "progress": 1.0}) is Decision.CONTINUE


def test_ends_reach_database_and_search(begin):
    context = begin(search={"n_trials": 6})
    ended = []
    for outcome in (Outcome.COMPLETE, Outcome.PRUNED, Outcome.DIVERGED, Outcome.INFEASIBLE, Outcome.FAILED):
        recorder, spec = start(context)
        recorder.end(result(spec.number, outcome))
        ended.append(context.database.trials.get("tiny", spec.number).outcome)
    assert ended == ["complete", "pruned", "diverged", "infeasible", "failed"]
    told = optuna_trials()
    pruned = TrialState.PRUNED
    assert [trial.state for trial in told] == [TrialState.COMPLETE, pruned, pruned, pruned, TrialState.FAIL]
    assert told[0].value == 1.0
    infeasible = told[3]
    assert any(value > 0 for value in infeasible.constraints.values())


def test_finishing_twice_is_finishing_once(begin):
    context = begin()
    _, spec = start(context)
    context.database.trials.finish("tiny", result(spec.number))  # the process died between database and search
    finish(context, result(spec.number))
    assert optuna_trials()[0].state is TrialState.COMPLETE


@pytest.fixture
def dead(begin):
    """A study whose process died while trial 0 ran; and a fresh look at it, as a new process has."""

    def make(left=None, listener=None):
        context = begin()
        start(context)
        if left is not None:
            write_atomically(context.paths.trial(0).result, left.model_dump_json())
        context.database.workers.leave(context.membership.token)
        from sweeper.study.context import open_stored

        return open_stored("tiny", Home.current(), context.database, listener or Listener(), StopRequest())

    return make


def test_a_result_on_disk_is_taken_up_not_trained_again(dead):
    context = dead(left=result(0, value=2.5))
    assert reclaim(context) == 0
    record = context.database.trials.get("tiny", 0)
    assert (record.outcome, record.value) == (Outcome.COMPLETE, 2.5)
    assert [(trial.state, trial.value) for trial in optuna_trials()] == [(TrialState.COMPLETE, 2.5)]
    assert ask(context).number == 1
    assert reclaim(context) == 0


@pytest.mark.parametrize("left", [None, result(0, Outcome.INTERRUPTED)], ids=["nothing", "an interrupted result"])
def test_a_trial_without_an_end_is_queued_again_once(dead, left):
    context = dead(left=left)
    old = context.database.trials.get("tiny", 0)
    assert reclaim(context) == 1
    assert reclaim(context) == 0
    record = context.database.trials.get("tiny", 0)
    assert (record.outcome, record.reason) == (Outcome.INTERRUPTED, "the process that ran it ended")
    again = ask(context)
    assert (again.number, again.restarts, again.seed) == (1, 0, old.seed)
    assert again.parameters["learning_rate"] == old.parameters["learning_rate"]
    assert context.search.remaining() == 3  # the interrupted one takes nothing from the budget


def test_a_trial_asked_for_but_never_started_is_queued_again(begin):
    context = begin()
    number = ask(context).number
    context.search.forget(number)  # as another process sees it
    context.database.workers.leave(context.membership.token)
    assert reclaim(context) == 1
    assert ask(context).restarts == number
    assert context.database.trials.all("tiny") == ()


def test_half_a_result_cannot_be(begin, tmp_path):
    """A result is written to one side and renamed, so a crash leaves none: what is there is whole."""
    context = begin()
    paths = context.paths.trial(0)
    assert read_result(paths) is None
    paths.folder.mkdir(parents=True)
    (paths.folder / ".result.json.123.tmp").write_text('{"number":')
    assert read_result(paths) is None


def test_a_damaged_result_is_put_aside_and_named(begin, caplog):
    paths = begin().paths.trial(0)
    write_atomically(paths.result, result(0).model_dump_json()[:-9])
    assert read_result(paths) is None
    assert str(paths.result) in caplog.text and "put aside as result.damaged" in caplog.text
    assert paths.folder.joinpath("result.damaged").is_file() and not paths.result.exists()


def test_a_resumed_study_says_how_many_trials_begin_again(dead):
    notes = []

    class Noting(Listener):
        def note(self, text):
            notes.append(text)

    dead()
    verdict = resume_study("tiny", listener=Noting(), force=True)
    assert notes[0] == "1 interrupted trial(s) begin again"
    assert verdict.registered is not None
