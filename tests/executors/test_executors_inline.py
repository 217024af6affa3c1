"""What is the inline executor's own: budgets, a base loaded once, trials that are not begun."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sweeper.config.trial import Outcome, TrialSpec
from sweeper.evaluation import scorer
from sweeper.executors import base_models as bases
from sweeper.executors import inline, micro_batches
from sweeper.executors.context import PendingOrders
from sweeper.executors.inline import InlineExecutor
from sweeper.executors.lifecycle.recorder import read_result
from sweeper.executors.listener import Listener
from sweeper.executors.packed.executor import PackedExecutor
from sweeper.executors.stop_request import StopRequest


def outcomes(context):
    return [trial.outcome for trial in context.database.trials.all(context.config.name)]


def test_the_base_is_loaded_once_and_not_before_it_is_needed(begin, monkeypatch):
    loads = []
    load_base = bases.load_base
    monkeypatch.setattr(bases, "load_base", lambda *args: loads.append(args) or load_base(*args))
    context, executor = begin(search={"n_trials": 2, "pruner": "none"}), InlineExecutor()
    executor.run(context)
    executor.base(context, TrialSpec.model_validate_json(context.paths.trial(1).spec.read_text()))
    assert outcomes(context) == [Outcome.COMPLETE] * 2
    assert len(loads) == 1
    stopped = begin(name="stopped")
    stopped.stop.set()
    InlineExecutor().run(stopped)
    assert len(loads) == 1


def test_no_trial_starts_after_the_epochs_are_spent(begin):
    context = begin(search={"n_trials": 9, "max_epochs_total": 3.0, "pruner": "none"})
    InlineExecutor().run(context)
    assert outcomes(context) == [Outcome.COMPLETE] * 2  # 2 epochs each: the second starts at 2 and ends at 4
    assert context.search.epochs_spent == 4.0


def test_no_trial_starts_after_the_timeout(begin, monkeypatch):
    context = begin(search={"n_trials": 9, "timeout": "1h", "pruner": "none"})
    clock = [0.0]

    def an_hour_later(*args, **named):
        clock[0] += 1900.0
        return train_trial(*args, **named)

    train_trial = inline.train_trial
    monkeypatch.setattr(inline, "train_trial", an_hour_later)
    monkeypatch.setattr(PendingOrders, "clock", lambda asked: clock[0])
    InlineExecutor().run(context)
    assert outcomes(context) == [Outcome.COMPLETE] * 2


def test_what_cannot_fit_by_the_estimate_is_not_begun(begin, monkeypatch):
    monkeypatch.setattr(micro_batches, "free_memory_bytes", lambda device: 1000)
    monkeypatch.setattr(inline, "train_trial", lambda *_, **named: pytest.fail("it was begun"))
    context = begin(search={"n_trials": 2})
    InlineExecutor().run(context)
    assert outcomes(context) == [Outcome.INFEASIBLE] * 2
    kept = read_result(context.paths.trial(0))
    assert kept.reason == "by the estimate a single row does not fit in the free memory"
    told = context.search.study.get_trials()[0]
    assert list(told.constraints.values()) == [1.0]


def test_a_task_metric_is_measured_on_the_validation_split(begin, monkeypatch):
    rows, signs, measure = [], [], scorer.score

    def watched(model, tokenizer, given, *others):
        rows.append(given)
        before = len(signs)
        scores = measure(model, tokenizer, given, *others)
        assert len(signs) > before  # answering takes long: whoever watches for a hanging process hears of it
        return scores

    monkeypatch.setattr(scorer, "score", watched)
    space = {"learning_rate": 2e-2, "lora_rank": 4, "lora_dropout": 0.0, "batch_size": 8, "epochs": 4}
    context = begin(shape="same_answer", search={"n_trials": 1, "space": space}, evaluation={"metric": "exact_match"})
    context.keep_alive = lambda: signs.append(True)
    InlineExecutor().run(context)
    (trial,) = context.database.trials.all("tiny")
    assert trial.outcome is Outcome.COMPLETE
    found = [point.value for point in context.database.metrics.get("tiny", name="exact_match")]
    assert trial.value == max(found) > 0.5
    assert [len(given) for given in rows] == [8, 8, 8]
    assert rows[0][0]["prompt"] == "write three zero zero:"
    assert {point.name for point in context.database.metrics.get("tiny")} >= {"exact_match", "eval_loss", "loss"}


class Stopping(Listener):
    """Asks to stop after a step, and keeps what the study has to say."""

    def __init__(self, at=None):
        self.at = at
        self.stop = StopRequest()
        self.notes = []

    def trial_reported(self, number, step, metrics):
        if step == self.at:
            self.stop.set()

    def note(self, text):
        self.notes.append(text)


ONE = {"n_trials": 1, "pruner": "none"}


def curve(context, name, number=0):
    return [(p.step, p.value) for p in context.database.metrics.get(context.config.name, number=number, name=name)]


@pytest.fixture
def stopped(begin):
    """A study of one trial, stopped in the fourth of its six steps, and a way to run it again."""
    listener = Stopping(at=4)
    context = begin(listener=listener, stop=listener.stop, search=ONE)
    InlineExecutor().run(context)
    assert outcomes(context) == [Outcome.INTERRUPTED]
    assert context.paths.trial(0).is_frozen

    def again(executor):
        after = replace(context, listener=Stopping(), stop=StopRequest())
        executor.run(after)
        return after

    return again


def test_a_stopped_trial_goes_on_where_it_was(stopped, begin):
    context = stopped(InlineExecutor())
    whole = begin(name="whole", search=ONE)
    InlineExecutor().run(whole)
    assert outcomes(context) == outcomes(whole) == [Outcome.COMPLETE]
    assert [step for step, _ in curve(context, "loss")] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in curve(context, "eval_loss")] == [2, 4, 6]
    for name in ("loss", "eval_loss", "grad_norm", "learning_rate"):
        assert curve(context, name) == curve(whole, name), name
    told, expected = (study.search.study.get_trials()[0] for study in (context, whole))
    assert told.intermediate_values == expected.intermediate_values
    assert told.value == expected.value
    assert not context.paths.trial(0).is_frozen
    assert context.listener.notes == ["1 stopped trial(s) go on where they were"]


def test_what_another_engine_wrote_begins_again(stopped):
    context = stopped(PackedExecutor())
    assert "1 interrupted trial(s) begin again" in context.listener.notes
    assert outcomes(context) == [Outcome.INTERRUPTED, Outcome.COMPLETE]
    assert len(curve(context, "loss", number=1)) == 6


def test_a_frozen_slot_begins_again_one_by_one(begin):
    listener = Stopping(at=4)
    context = begin(listener=listener, stop=listener.stop, search=ONE)
    PackedExecutor().run(context)
    assert context.paths.trial(0).is_frozen
    after = replace(context, listener=Stopping(), stop=StopRequest())
    InlineExecutor().run(after)
    assert "1 interrupted trial(s) begin again" in after.listener.notes
    assert outcomes(after) == [Outcome.INTERRUPTED, Outcome.COMPLETE]
    assert not context.paths.trial(0).is_frozen


def test_what_has_run_is_tried_whatever_the_estimate_says_now(stopped, monkeypatch):
    monkeypatch.setattr(micro_batches, "free_memory_bytes", lambda device: 1000)
    assert outcomes(stopped(InlineExecutor())) == [Outcome.COMPLETE]
