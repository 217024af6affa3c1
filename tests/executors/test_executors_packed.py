"""What is the packed executor's own: slots that are filled, frozen, promoted, and that fail alone."""

from __future__ import annotations

import gc
import json

import optuna
import psutil
import pytest
import torch
from optuna.trial import TrialState

from sweeper.config.trial import Outcome
from sweeper.errors import DatabaseError, StudyInterrupted
from sweeper.executors.listener import Listener
from sweeper.executors.packed import capacity as room
from sweeper.executors.packed import evaluation as evaluating
from sweeper.executors.packed import executor as packed
from sweeper.executors.packed import pack
from sweeper.executors.packed.executor import PackedExecutor
from sweeper.executors.stop_request import StopRequest
from sweeper.packing.engine import Engine
from sweeper.packing.slot import Slot
from sweeper.paths import Home
from sweeper.search.storages.open import open_storage
from sweeper.store import Database
from sweeper.study.run import resume_study, run_study


def slots(number, **more):
    return {"kind": "packed", "slots": number, "device": "cpu", **more}


def records(context):
    return context.database.trials.all(context.config.name)


class Watching(Listener):
    """Keeps what it is told; may ask to stop at a trial's step."""

    def __init__(self, stop_at=None):
        self.stop, self.stop_at = StopRequest(), stop_at
        self.running, self.most, self.events, self.notes = set(), 0, [], []

    def trial_started(self, candidate, spec, total_steps):
        self.running.add(candidate.number)
        self.most = max(self.most, len(self.running))
        self.events.append(("started", candidate.number))

    def trial_reported(self, number, step, metrics):
        self.events.append(("reported", number, step))
        if (number, step) == self.stop_at:
            self.stop.set()

    def trial_ended(self, result):
        self.running.discard(result.number)
        self.events.append(("ended", result.number, result.outcome))

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def conduct(begin):
    """Run a study's trials packed; return its context and what was seen."""

    def run(stop_at=None, **parts):
        watching = Watching(stop_at)
        context = begin(listener=watching, stop=watching.stop, **parts)
        PackedExecutor().run(context)
        return context, watching

    return run


def test_slots_are_filled_and_refilled_while_the_others_go_on(conduct):
    space = {"batch_size": 8, "epochs": [1, 4], "learning_rate": 1e-3}
    enqueue = [{"epochs": 4}, {"epochs": 1}, {"epochs": 1}, {"epochs": 1}]
    search = {"space": space, "enqueue": enqueue, "n_trials": 4, "pruner": "none", "confirm": 0}
    context, seen = conduct(search=search, executor=slots(2))
    assert seen.notes[-1] == "up to 2 trials at a time on one base model"
    assert seen.most == 2
    assert [record.outcome for record in records(context)] == [Outcome.COMPLETE] * 4
    long = [event for event in seen.events if event[1] == 0 and event[0] == "reported"]
    second = seen.events.index(("started", 2))
    before, after = (e for e in (("ended", 1, Outcome.COMPLETE), ("started", 3)))
    assert seen.events.index(before) < second < seen.events.index(after)
    assert 0 < len([e for e in seen.events[:second] if e in long]) < len(long)


def test_no_more_slots_than_a_third_of_the_trials_unless_asked_for(conduct):
    _, seen = conduct(search={"n_trials": 6, "pruner": "none"}, executor={"kind": "packed", "device": "cpu"})
    assert seen.most == 2


def test_confirmations_wait_for_the_search_to_end(conduct):
    search = {"n_trials": 5, "confirm": 0.4, "confirm_top": 2, "pruner": "none"}
    context, seen = conduct(search=search, executor=slots(5))
    ended = [event[1] for event in seen.events if event[0] == "ended"]
    first = seen.events.index(("started", 3))
    assert {number for number in ended if ("ended", number, Outcome.COMPLETE) in seen.events[:first]} == {0, 1, 2}
    best = min(records(context)[:3], key=lambda record: record.value)
    assert [record.kind for record in records(context)[3:]] == ["confirmation"] * 2
    assert records(context)[3].confirms == best.number


def test_trials_under_way_count_against_the_epochs(conduct):
    context, _ = conduct(search={"n_trials": 9, "max_epochs_total": 3.0, "pruner": "none"}, executor=slots(9))
    assert len(records(context)) == 2  # 2 epochs each: the second starts at 2 and ends at 4


def test_a_diverged_trial_is_pruned_and_replaced_and_the_others_never_know(conduct, monkeypatch):
    search = {"n_trials": 4, "pruner": "none", "confirm": 0, "sampler": "random"}
    expected, _ = conduct(search=search, executor=slots(2))
    take = Slot.take

    def diverge(slot, loss):
        return take(slot, float("nan") if (slot.number, slot.progress.steps) == (1, 2) else loss)

    monkeypatch.setattr(Slot, "take", diverge)
    context, seen = conduct(name="sick", search=search, executor=slots(2))
    sick = records(context)[1]
    assert (sick.outcome, sick.reason, sick.steps) == (Outcome.DIVERGED, "the loss is nan at step 3", 3)
    assert context.search.study.get_trials()[1].state is TrialState.PRUNED
    assert seen.most == 2
    for number in (0, 2, 3):
        assert records(context)[number].value == pytest.approx(records(expected)[number].value, rel=1e-5)


def test_a_trial_that_breaks_a_pass_ends_alone(conduct, monkeypatch):
    train = Engine.train

    def fragile(engine, parts, items):
        if any(part.adapter is broken for part in parts):
            raise RuntimeError("broken")
        return train(engine, parts, items)

    run, broken = pack.Pack._run, None

    def started(one, slot, *rest):
        nonlocal broken
        broken = slot.adapter if slot.number == 1 else broken
        run(one, slot, *rest)

    monkeypatch.setattr(Engine, "train", fragile)
    monkeypatch.setattr(pack.Pack, "_run", started)
    context, _ = conduct(search={"n_trials": 3, "pruner": "none", "confirm": 0}, executor=slots(3))
    outcomes = [record.outcome for record in records(context)]
    assert outcomes == [Outcome.COMPLETE, Outcome.FAILED, Outcome.COMPLETE]
    assert records(context)[1].reason == "RuntimeError: broken"
    assert "Traceback" in (context.paths.trial(1).folder / "error.txt").read_text()


@pytest.mark.parametrize("most", [30, 60, 200])
def test_where_memory_runs_out_passes_shrink_and_results_stay(conduct, monkeypatch, most):
    search = {"n_trials": 3, "pruner": "none", "confirm": 0, "sampler": "random"}
    expected, _ = conduct(search=search, executor=slots(3))
    train, losses, sizes = Engine.train, Engine.mean_losses, []

    def small(engine, parts, items):
        tokens = sum(part.tokens for part in parts)
        if tokens > most:
            parts[0].adapter.parameters[0].grad.add_(1.0)  # whatever a pass leaves behind when it fails midway
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(tokens)
        return train(engine, parts, items)

    def small_losses(engine, adapters, rows, limit, **more):
        if limit > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return losses(engine, adapters, rows, limit, **more)

    monkeypatch.setattr(Engine, "train", small)
    monkeypatch.setattr(Engine, "mean_losses", small_losses)
    context, seen = conduct(name="small", search=search, executor=slots(3))
    assert max(sizes) <= most
    for ours, theirs in zip(records(context), records(expected), strict=True):
        assert (ours.outcome, ours.tokens) == (Outcome.COMPLETE, theirs.tokens)
        assert ours.value == pytest.approx(theirs.value, rel=1e-5)
    assert seen.most == 3


def test_where_one_row_does_not_fit_beside_the_others_a_trial_waits_on_disk(conduct, monkeypatch):
    search = {"n_trials": 2, "pruner": "none", "confirm": 0, "sampler": "random"}
    expected, _ = conduct(search=search, executor=slots(2))
    train, alive, run, end = Engine.train, set(), pack.Pack._run, pack.Pack._end

    def crowded(engine, parts, items):
        if len(alive) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return train(engine, parts, items)

    monkeypatch.setattr(pack.Pack, "_run", lambda p, slot, *more: (alive.add(slot.number), run(p, slot, *more))[1])
    monkeypatch.setattr(
        pack.Pack, "_end", lambda p, one, *more: (alive.discard(one.slot.number), end(p, one, *more))[1]
    )
    monkeypatch.setattr(Engine, "train", crowded)
    context, seen = conduct(name="crowded", search=search, executor=slots(2))
    assert ("ended", 1, Outcome.INTERRUPTED) in seen.events
    for ours, theirs in zip(records(context), records(expected), strict=True):
        assert ours.outcome is Outcome.COMPLETE
        assert ours.value == pytest.approx(theirs.value, rel=1e-5)
    assert not context.paths.trial(1).frozen.exists()


def test_the_plan_is_tried_where_running_out_of_memory_does_not_end_the_process(conduct, monkeypatch):
    search = {"n_trials": 3, "pruner": "none", "confirm": 0, "sampler": "random"}
    expected, _ = conduct(search=search, executor=slots(3))
    train, tried, plans = Engine.train, [], []

    def small(engine, parts, items):
        tokens = sum(part.tokens for part in parts)
        tried.append(tokens)
        if tokens > 150:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return train(engine, parts, items)

    plan = room.PackCapacity.try_out

    def watched(one, slots):
        plan(one, slots)
        plans.append((len(tried), one.tokens))

    monkeypatch.setattr(Engine, "train", small)
    monkeypatch.setattr(room.PackCapacity, "try_out", watched)
    monkeypatch.setattr(room.PackCapacity, "_outlives_lack_of_memory", True)
    context, _ = conduct(name="tried", search=search, executor=slots(3))
    ((attempts, tokens),) = plans
    assert attempts > 1
    assert tried[0] > 150 >= tried[attempts - 1]
    assert tokens <= 300  # three slots, each with as many rows of the longest as fit
    for ours, theirs in zip(records(context), records(expected), strict=True):
        assert ours.value == pytest.approx(theirs.value, rel=1e-5)


def test_trials_evaluated_together_are_judged_together(conduct):
    search = {
        "space": {"learning_rate": [1e-7, 1e-2], "batch_size": 8, "epochs": 2},
        "enqueue": [{"learning_rate": 1e-7}, {"learning_rate": 1e-2}],
    }
    context, _ = conduct(search={**search, "n_trials": 2, "confirm": 0}, executor=slots(2))
    weak, good = records(context)
    assert (weak.outcome, good.outcome) == (Outcome.PRUNED, Outcome.COMPLETE)  # though the weak one came first
    assert weak.steps == 2


@pytest.mark.filterwarnings("ignore:The .'keep_end'. truncation mode is deprecated:FutureWarning")
def test_trials_whose_rows_differ_are_evaluated_on_their_own(conduct, tmp_path, monkeypatch):
    from tiny import write_rows

    rows = [{"prompt": f"write {n} " * 9, "completion": " one two three" * 3} for n in range(24)]
    data = {split: str(write_rows(tmp_path / f"{split}.jsonl", rows)) for split in ("train", "validation", "test")}
    space = {"truncation_mode": ["keep_start", "keep_end"], "batch_size": 8, "epochs": 1, "learning_rate": 1e-3}
    enqueue = [{"truncation_mode": "keep_start"}, {"truncation_mode": "keep_end"}]
    parts = {
        "data": data,
        "technique": {"max_length": 60, "completion_only": False},
        "search": {"space": space, "enqueue": enqueue, "n_trials": 2, "pruner": "none", "confirm": 0},
    }
    together, _ = conduct(name="together", executor=slots(2), **parts)
    apart, _ = conduct(name="apart", executor=slots(1), **parts)
    assert [record.reason for record in records(together)] == [None, None]
    values = [[record.value for record in records(context)] for context in (together, apart)]
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert abs(values[0][0] - values[0][1]) > 1e-3  # the rows do differ


def test_a_stop_during_an_evaluation_does_not_spare_a_trial_its_judgement(study_file, monkeypatch):
    search = {
        "space": {"learning_rate": [1e-7, 1e-2], "batch_size": 8, "epochs": 2},
        "enqueue": [{"learning_rate": 1e-2}, {"learning_rate": 1e-7}],
    }
    file = study_file(search={**search, "n_trials": 2, "confirm": 0}, executor=slots(1))
    first, measure = Watching(), evaluating.Evaluating._measure

    def stopping(one, running, loss):
        if (running.slot.number, running.slot.progress.steps) == (1, 2):
            first.stop.set()
        return measure(one, running, loss)

    monkeypatch.setattr(evaluating.Evaluating, "_measure", stopping)
    with pytest.raises(StudyInterrupted):
        run_study(file, listener=first, stop=first.stop)
    resume_study("tiny")
    with Database.open(Home.current().database, create=False) as database:
        good, weak = database.trials.all("tiny")
    assert (good.outcome, weak.outcome, weak.steps) == (Outcome.COMPLETE, Outcome.PRUNED, 2)


def test_a_fault_of_the_database_while_trials_are_judged_loses_no_step(study_file, monkeypatch):
    file = study_file(search={"n_trials": 2, "pruner": "none", "confirm": 0}, executor=slots(2))
    announce = pack.Running.announce

    def broken(running, metrics):
        if running.slot.has_ended:
            raise DatabaseError("the database is locked")
        announce(running, metrics)

    with monkeypatch.context() as patched, pytest.raises(DatabaseError):
        patched.setattr(pack.Running, "announce", broken)
        run_study(file)
    resume_study("tiny")
    with Database.open(Home.current().database, create=False) as database:
        trials = database.trials.all("tiny")
    assert [(trial.number, trial.outcome, trial.steps) for trial in trials] == [
        (0, Outcome.COMPLETE, 6),
        (1, Outcome.COMPLETE, 6),
    ]


def test_one_trial_that_cannot_fit_is_infeasible(conduct, monkeypatch):
    def never(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Engine, "train", never)
    context, _ = conduct(search={"n_trials": 2, "confirm": 0}, executor=slots(1))
    assert [record.outcome for record in records(context)] == [Outcome.INFEASIBLE] * 2


def test_a_stopped_trial_goes_on_where_it_was_and_no_step_is_told_twice(study_file, tmp_path):
    space = {
        "learning_rate": {"low": 1e-3, "high": 3e-2, "log": True},
        "lora_dropout": 0.2,
        "batch_size": 8,
        "epochs": 2,
    }
    search = {"n_trials": 6, "known_good": True, "confirm": 0.4, "confirm_top": 2, "sampler": "tpe", "space": space}
    file = study_file(search=search, executor=slots(2))
    through, stopped = Home(tmp_path / "through"), Home(tmp_path / "stopped")
    run_study(file, home=through)
    first = Watching(stop_at=(1, 2))  # where an evaluation is due, which then comes after the stop
    with pytest.raises(StudyInterrupted):
        run_study(file, home=stopped, listener=first, stop=first.stop)
    assert sorted(event for event in first.events if event[0] == "ended") == [
        ("ended", 0, Outcome.INTERRUPTED),
        ("ended", 1, Outcome.INTERRUPTED),
    ]
    assert all(stopped.study("tiny").trial(number).is_frozen for number in (0, 1))
    second = Watching()
    resume_study("tiny", home=stopped, listener=second)
    assert second.notes[:2] == [
        "up to 2 trials at a time on one base model",
        "2 stopped trial(s) go on where they were",
    ]
    told = [event for seen in (first, second) for event in seen.events if event[0] == "reported"]
    for number in range(6):
        steps = list(dict.fromkeys(event[2] for event in told if event[1] == number))
        assert steps == list(range(1, len(steps) + 1)), number
    found = []
    for home in (through, stopped):
        with Database.open(home.database, create=False) as database:
            trials = database.trials.all("tiny")
            losses = [p.value for p in database.metrics.get("tiny", name="loss")]
            found.append(([(t.number, t.outcome, t.value, t.adapter_sha256) for t in trials], losses))
    assert found[0] == found[1]
    assert not any(stopped.study("tiny").trial(number).frozen.exists() for number in range(6))


def test_a_killed_process_leaves_its_frozen_trials_to_go_on(study_file):
    file = study_file(search={"n_trials": 2, "pruner": "none", "confirm": 0}, executor=slots(2))
    first = Watching(stop_at=(1, 2))
    with pytest.raises(StudyInterrupted):
        run_study(file, listener=first, stop=first.stop)
    home = Home.current()

    class Dies(Listener):
        def trial_reported(self, number, step, metrics):
            if step == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resume_study("tiny", listener=Dies())
    resume_study("tiny")
    with Database.open(home.database, create=False) as database:
        trials = database.trials.all("tiny")
    assert [(trial.number, trial.outcome) for trial in trials] == [(0, Outcome.COMPLETE), (1, Outcome.COMPLETE)]


def test_a_frozen_trial_begins_again_where_trials_run_one_at_a_time(study_file, monkeypatch):
    file = study_file(search={"n_trials": 2, "pruner": "none", "confirm": 0}, executor=slots(2))
    first = Watching(stop_at=(1, 2))
    with pytest.raises(StudyInterrupted):
        run_study(file, listener=first, stop=first.stop)
    monkeypatch.setattr(packed, "obstacle_in_base", lambda base: "for the test")
    second = Watching()
    resume_study("tiny", listener=second)
    assert second.notes[:2] == ["trials run one at a time: for the test", "2 interrupted trial(s) begin again"]
    with Database.open(Home.current().database, create=False) as database:
        trials = database.trials.all("tiny")
    assert [trial.outcome for trial in trials] == [Outcome.INTERRUPTED] * 2 + [Outcome.COMPLETE] * 2
    assert not Home.current().study("tiny").trial(0).frozen.exists()


PROMOTE = {"kind": "asha", "eta": 2, "start": 0.34, "promote": True}


def promoting(rates, **more):
    """A search over learning rates, the larger the better, in the order given."""
    space = {"learning_rate": sorted(rates), "batch_size": 8, "epochs": 2, "lora_rank": 4}
    enqueue = [{"learning_rate": rate} for rate in rates]
    return {"space": space, "enqueue": enqueue, "n_trials": len(rates), "pruner": PROMOTE, "confirm": 0, **more}


def test_a_paused_trial_is_promoted_once_later_ones_are_worse(conduct):
    context, seen = conduct(search=promoting([1e-2, 8e-3, 1e-6, 1e-7]), executor=slots(1))
    second = [event for event in seen.events if event[1] == 1 and event[0] != "reported"]
    assert second == [
        ("started", 1),
        ("ended", 1, Outcome.PAUSED),  # worse than the first
        ("started", 1),  # among the best two of four
        ("ended", 1, Outcome.COMPLETE),
    ]
    outcomes = [record.outcome for record in records(context)]
    assert outcomes == [Outcome.COMPLETE, Outcome.COMPLETE, Outcome.PRUNED, Outcome.PRUNED]
    assert records(context)[3].reason == "worse than other trials at the same progress, and never promoted"
    assert not any(context.paths.trial(number).frozen.exists() for number in range(4))
    told = optuna.load_study(study_name="tiny", storage=open_storage(Home.current().database)).trials
    assert [trial.state.name for trial in told] == ["COMPLETE", "COMPLETE", "PRUNED", "PRUNED"]
    steps = [event[2] for event in seen.events if event[:2] == ("reported", 1)]
    assert steps == sorted(steps)


def test_a_promoted_trial_ends_as_it_would_have_without_the_pause(conduct):
    rates = [1e-2, 8e-3, 1e-6, 1e-7]
    plain, _ = conduct(name="plain", search=promoting(rates, pruner="none"), executor=slots(1))
    context, _ = conduct(search=promoting(rates), executor=slots(1))
    assert records(context)[1].adapter_sha256 == records(plain)[1].adapter_sha256
    assert records(context)[1].value == records(plain)[1].value


def test_paused_trials_outlive_a_stop(study_file):
    file = study_file(search=promoting([1e-2, 8e-3, 1e-6, 1e-7]), executor=slots(1))
    first = Watching(stop_at=(2, 1))
    with pytest.raises(StudyInterrupted):
        run_study(file, listener=first, stop=first.stop)
    assert ("ended", 1, Outcome.PAUSED) in first.events
    second = Watching()
    resume_study("tiny", listener=second)
    assert [event[1] for event in second.events if event[0] == "started"][:2] == [2, 3]
    with Database.open(Home.current().database, create=False) as database:
        outcomes = [trial.outcome for trial in database.trials.all("tiny")]
    assert outcomes == [Outcome.COMPLETE, Outcome.COMPLETE, Outcome.PRUNED, Outcome.PRUNED]


def test_one_at_a_time_without_packing_a_paused_trial_is_pruned(conduct):
    search = promoting([1e-2, 1e-7])
    search["space"]["neftune_noise_alpha"] = 1.0
    context, seen = conduct(search=search, executor=slots(2))
    assert "trials run one at a time: neftune_noise_alpha belongs to TRL's trainer" in seen.notes[-1]
    assert [record.outcome for record in records(context)] == [Outcome.COMPLETE, Outcome.PRUNED]


def test_a_task_metric_is_measured_with_each_slots_own_adapter(conduct):
    space = {"learning_rate": [1e-6, 2e-2], "lora_rank": 4, "lora_dropout": 0.0, "batch_size": 8, "epochs": 4}
    enqueue = [{"learning_rate": 1e-6}, {"learning_rate": 2e-2}]
    search = {"n_trials": 2, "space": space, "enqueue": enqueue, "pruner": "none", "confirm": 0}
    context, _ = conduct(shape="same_answer", search=search, executor=slots(2), evaluation={"metric": "exact_match"})
    idle, learned = records(context)
    assert idle.value == 0.0
    assert learned.value > 0.5


def test_the_adapter_on_disk_is_the_best_evaluations(conduct):
    context, _ = conduct(search={"n_trials": 1, "pruner": "none"}, executor=slots(1))
    (record,) = records(context)
    config = json.loads((context.paths.trial(0).adapter / "adapter_config.json").read_text())
    assert config["r"] == record.parameters["lora_rank"]
    assert sorted(path.name for path in context.paths.trial(0).folder.iterdir()) == [
        "adapter",
        "result.json",
        "spec.json",
    ]
    assert 0 < record.train_seconds < 60
    assert record.tokens > 0


@pytest.mark.long
def test_memory_does_not_grow_over_many_trials(begin):
    counted = []

    class Counting(Listener):
        def trial_ended(self, result):
            if result.number in (60, 199):
                gc.collect()
                tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
                counted.append((tensors, psutil.Process().memory_info().rss))

    space = {"learning_rate": {"low": 1e-4, "high": 1e-2}, "batch_size": 24, "epochs": 1, "lora_rank": 4}
    search = {"n_trials": 200, "sampler": "random", "space": space, "confirm": 0, "pruner": "none"}
    context = begin(listener=Counting(), search=search, executor=slots(4), evaluation={"points": 1})
    PackedExecutor().run(context)
    assert [record.outcome for record in records(context)] == [Outcome.COMPLETE] * 200
    (tensors, before), (tensors_after, after) = counted
    assert tensors_after - tensors < 200  # a single trial has 84 weights, gradients and moments, and 14 views
    assert after - before < 40 * 2**20
