"""The runner obeys: what people ask of a study while it runs, packed and one at a time."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file
from variants import mostly_long

from sweeper.config.trial import Outcome, TrialSpec
from sweeper.errors import StudyInterrupted, StudyStateError, UserError
from sweeper.executors.lifecycle import orders as control
from sweeper.executors.listener import Listener
from sweeper.executors.stop_request import StopRequest
from sweeper.paths import Home
from sweeper.store import Database, OrderKind, OrderState, StudyState
from sweeper.study.orders import give
from sweeper.study.run import resume_study, run_study
from sweeper.training.trial import BY_HAND

KINDS = [{"kind": "packed", "slots": 2}, {"kind": "inline"}]
on_both = pytest.mark.parametrize("executor", mostly_long(KINDS, KINDS[0]), ids=lambda each: each["kind"])
PLAIN = {"pruner": "none", "confirm": 0, "sampler": "random"}


def ask(kind, number=None, study="tiny", **data):
    home = Home.current()
    with Database.open(home.database, create=False) as database:
        return give(home, database, study, kind, actor="ada", number=number, data=data).id


class Asking(Listener):
    """Gives an order when a trial has come to a step; keeps what is reported and noted."""

    def __init__(self, at, *order, **data):
        self.at, self.order, self.data = at, order, data
        self.steps, self.notes, self.ids = [], [], []
        self.stop = StopRequest()

    def trial_reported(self, number, step, metrics):
        if "loss" in metrics:
            self.steps.append((number, step))
        if (number, step) == self.at and not self.ids:
            self.ids.append(ask(*self.order, **self.data))

    def note(self, text):
        self.notes.append(text)


def run(file, listener):
    return run_study(file, listener=listener, stop=listener.stop, force=True)


@pytest.fixture
def stored():
    with Database.open(Home.current().database, create=True) as database:
        yield database


def answers(database, study="tiny"):
    return [(order.state, order.answer) for order in reversed(database.orders.all(study))]


@on_both
def test_a_stopped_trial_is_pruned_at_its_next_step_and_the_others_go_on(study_file, executor, stored):
    asking = Asking((1, 1), OrderKind.STOP_TRIAL, 1)
    run(study_file(search={**PLAIN, "n_trials": 3}, executor=executor), asking)
    outcomes = [trial.outcome for trial in stored.trials.all("tiny")]
    assert outcomes == [Outcome.COMPLETE, Outcome.PRUNED, Outcome.COMPLETE]
    stopped = stored.trials.get("tiny", 1)
    assert (stopped.steps, stopped.reason) == (2, BY_HAND)
    assert answers(stored) == [(OrderState.DONE, BY_HAND)]
    (event,) = [event for event in stored.events.all("tiny") if event.kind == "order"]
    assert event.number == 1 and "asked by ada" in event.message
    assert stored.actions.all(study="tiny")[0].actor == "ada"
    assert any("ada asked for stop_trial (trial 1)" in note for note in asking.notes)


@on_both
def test_a_stopped_trial_whose_process_is_killed_is_stopped_under_its_new_number(study_file, executor, stored):
    class Dying(Asking):
        def trial_reported(self, number, step, metrics):
            if (number, step) == self.at:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(study_file(search={**PLAIN, "n_trials": 2}, executor=executor), Dying((0, 2), None))
    ask(OrderKind.STOP_TRIAL, 0)
    resume_study("tiny", force=True)
    trials = stored.trials.all("tiny")
    (again,) = [trial for trial in trials if trial.restarts == 0]
    assert trials[0].outcome is Outcome.INTERRUPTED
    assert (again.outcome, again.reason) == (Outcome.PRUNED, BY_HAND)
    assert answers(stored) == [(OrderState.DONE, BY_HAND)]
    assert [trial.outcome for trial in trials].count(Outcome.COMPLETE) == 1
    with pytest.raises(StudyStateError, match=f"begun again as trial {again.number}, does not run: pruned"):
        ask(OrderKind.STOP_TRIAL, 0)


@on_both
def test_a_stop_is_as_ctrl_c(study_file, executor, stored):
    asking = Asking((0, 2), OrderKind.STOP)
    with pytest.raises(StudyInterrupted):
        run(study_file(search={**PLAIN, "n_trials": 3}, executor=executor), asking)
    assert max(step for number, step in asking.steps if number == 0) <= 3
    assert stored.studies.get("tiny").state is StudyState.INTERRUPTED
    assert answers(stored) == [(OrderState.DONE, "stops after this step")]
    resume_study("tiny", force=True)
    assert stored.studies.get("tiny").state is StudyState.FINISHED


@on_both
def test_an_enqueued_configuration_runs_next_on_top_of_the_others(study_file, executor, stored):
    asking = Asking((0, 2), OrderKind.ENQUEUE, parameters={"learning_rate": 2e-3, "lora_rank": 4})
    run(study_file(search={**PLAIN, "n_trials": 3}, executor=executor), asking)
    trials = stored.trials.all("tiny")
    assert len(trials) == 4 and all(trial.outcome is Outcome.COMPLETE for trial in trials)
    ((state, answer),) = answers(stored)
    number = int(answer.rpartition(" ")[2])
    assert (state, number) == (OrderState.DONE, 1 if executor["kind"] == "inline" else 2)
    assert trials[number].parameters["learning_rate"] == 2e-3
    assert trials[number].parameters["lora_rank"] == 4
    assert [n for n in range(4) if trials[n].parameters["learning_rate"] == 2e-3] == [number]


@on_both
def test_a_clone_from_weights_starts_where_the_other_ended(study_file, executor, stored):
    search = {**PLAIN, "n_trials": 1}
    run(study_file(search=search, executor=executor), Asking((9, 9), None))
    original = stored.trials.get("tiny", 0)
    ask(OrderKind.CLONE, 0, changes={"learning_rate": 1e-3}, from_weights=True)
    ask(OrderKind.CLONE, 0, changes={"learning_rate": 1e-3}, from_weights=False)
    resume_study("tiny", force=True)
    continued, anew = stored.trials.all("tiny")[1:]
    for clone in (continued, anew):
        assert (clone.clones, clone.outcome) == (0, Outcome.COMPLETE)
        assert clone.parameters["learning_rate"] == 1e-3
        same = {"learning_rate"}
        assert {k: v for k, v in clone.parameters.items() if k not in same} == {
            k: v for k, v in original.parameters.items() if k not in same
        }
    first = {trial: stored.metrics.get("tiny", number=trial, name="loss")[0].value for trial in (0, 1, 2)}
    assert first[1] < first[2] - 0.1 and first[1] < first[0] - 0.1
    paths = Home.current().study("tiny")
    assert TrialSpec.model_validate_json(paths.trial(1).spec.read_text()).initial_adapter == paths.trial(0).adapter
    assert stored.evaluations.all("tiny")  # the study was scored again


def test_the_weights_are_exactly_those_that_were_saved(begin, tmp_path):
    from peft import get_peft_model_state_dict
    from tiny import trial_spec

    from sweeper.config.adapter import QLoRA
    from sweeper.packing.slot import Slot
    from sweeper.training.adapters import peft_config
    from sweeper.training.base_model import load_base
    from sweeper.training.trial import train_trial
    from sweeper.training.weights import load_weights

    context = begin()
    model = next(iter(context.models.values())).folder
    spec = trial_spec(model, tmp_path, adapter=QLoRA())
    base = load_base(model, spec.model, spec.adapter, "cpu")
    assert train_trial(spec, base, lambda *_: control_continue(), 8).outcome is Outcome.COMPLETE
    saved = spec.folder / "adapter"
    weights = load_file(saved / "adapter_model.safetensors")
    slot = Slot.new(spec.model_copy(update={"initial_adapter": saved}), base, 8)
    state = slot.adapter.state()
    assert state.keys() == weights.keys()
    assert all((state[name] == weights[name]).all() for name in weights)
    with base.adapted(peft_config(spec.adapter, spec.hyperparameters), 1) as adapted:
        load_weights(adapted, saved)
        loaded = get_peft_model_state_dict(adapted)
        assert all((loaded[name] == weights[name]).all() for name in weights)


def control_continue():
    from sweeper.config.trial import Decision

    return Decision.CONTINUE


@pytest.mark.parametrize(
    ("kind", "number", "data", "said"),
    [
        (OrderKind.ENQUEUE, None, {"parameters": {"learning_rate": 1.0}}, "outside the space: 0.001 to 0.03, log"),
        (OrderKind.ENQUEUE, None, {"parameters": {"lr": 1e-3}}, "lr is not in the space"),
        (OrderKind.ENQUEUE, None, {"parameters": {"learning_rate": float("nan")}}, "outside the space"),
        (OrderKind.ENQUEUE, None, {"parameters": {"learning_rate": "fast"}}, "outside the space"),
        (OrderKind.ENQUEUE, None, {"parameters": {"lora_rank": True}}, "outside the space"),
        (OrderKind.ENQUEUE, None, {"parameters": {}}, "at least one parameter"),
        (OrderKind.CLONE, 9, {"changes": {}, "from_weights": False}, "has no trial 9"),
        (OrderKind.CLONE, 0, {"changes": {"batch_size": 4}, "from_weights": False}, "always 8"),
        (OrderKind.CLONE, 0, {"changes": {"lora_rank": 2}, "from_weights": True}, "with a different lora_rank"),
        (OrderKind.STOP_TRIAL, 0, {}, "does not run: complete"),
        (OrderKind.STOP, None, {}, "is finished: no process runs it"),
        (OrderKind.PAUSE, None, {}, "is finished: no process runs it"),
        (OrderKind.BUDGET, None, {"n_trials": 0}, "n_trials: Input should be greater than or equal to 1"),
        (OrderKind.BUDGET, None, {"timeout": -1}, "timeout"),
        (OrderKind.BUDGET, None, {"slots": 0}, "slots: must be a number of at least 1, or auto"),
        (OrderKind.BUDGET, None, {"colour": 1}, "a budget has n_trials"),
    ],
)
def test_what_cannot_be_done_is_refused_when_it_is_asked(study_file, kind, number, data, said, stored):
    enqueue = [{"lora_rank": 4}]
    run(study_file(search={**PLAIN, "n_trials": 1, "enqueue": enqueue}), Asking((9, 9), None))
    with pytest.raises(UserError, match=said):
        ask(kind, number, **data)
    assert stored.orders.all("tiny") == () and stored.actions.all(study="tiny") == ()


def test_the_runner_refuses_what_was_not_seen_to_be_wrong(study_file, stored):
    run(study_file(search={**PLAIN, "n_trials": 1}), Asking((9, 9), None))
    stored.orders.add("tiny", OrderKind.ENQUEUE, actor="eve", message="", data={"parameters": {"learning_rate": 9}})
    stored.orders.add("tiny", OrderKind.STOP_TRIAL, actor="eve", message="", number=0)
    stored.orders.add("tiny", OrderKind.PAUSE, actor="eve", message="")
    resume_study("tiny", force=True)
    assert {state for state, _ in answers(stored)} == {OrderState.REFUSED}
    assert len(stored.trials.all("tiny")) == 1


@on_both
def test_a_larger_budget_runs_on_and_is_kept(study_file, executor, stored):
    asking = Asking((0, 2), OrderKind.BUDGET, n_trials=4, timeout=3600)
    run(study_file(search={**PLAIN, "n_trials": 2}, executor=executor), asking)
    assert len(stored.trials.all("tiny")) == 4
    search = stored.studies.get("tiny").config["search"]
    assert (search["n_trials"], search["timeout"]) == (4, 3600)
    (event,) = [event for event in stored.events.all("tiny") if event.kind == "budget"]
    assert event.message == "n_trials 2 -> 4, timeout None -> 3600.0"


@on_both
def test_a_smaller_budget_ends_the_search(study_file, executor, stored):
    asking = Asking((0, 2), OrderKind.BUDGET, n_trials=1)
    run(study_file(search={**PLAIN, "n_trials": 6}, executor=executor), asking)
    trials = stored.trials.all("tiny")
    assert len(trials) == (1 if executor["kind"] == "inline" else 2)  # two ran at once by then
    assert all(trial.outcome is Outcome.COMPLETE for trial in trials)


def test_slots_are_added_and_taken_within_a_step(study_file, stored, monkeypatch):
    from sweeper.executors.packed import pack

    seen = []
    passing = pack.Pack._pass_rows
    monkeypatch.setattr(pack.Pack, "_pass_rows", lambda one: (seen.append(sorted(one._running)), passing(one))[1])

    class Twice(Asking):
        def trial_reported(self, number, step, metrics):
            super().trial_reported(number, step, metrics)
            if (number, step) == (0, 4) and len(self.ids) == 1:
                self.ids.append(ask(OrderKind.BUDGET, slots=1))

    asking = Twice((0, 2), OrderKind.BUDGET, slots=3)
    run(study_file(search={**PLAIN, "n_trials": 3}, executor={"kind": "packed", "slots": 2}), asking)
    assert seen[0] == [0, 1]
    assert seen[2] == [0, 1, 2]
    assert seen[4] == [0]
    trials = stored.trials.all("tiny")
    assert [trial.outcome for trial in trials] == [Outcome.COMPLETE] * 3
    steps = [step for number, step in asking.steps if number == 2]
    assert steps == sorted(set(steps))  # frozen and gone on with, no step twice
    assert stored.studies.get("tiny").config["executor"]["slots"] == 1


def test_an_order_during_the_final_scoring_is_run_and_scored(study_file, stored):
    class Late(Asking):
        def stage(self, text, fraction=None):
            if text.startswith("scoring") and not self.ids:
                self.ids.append(ask(OrderKind.ENQUEUE, parameters={"learning_rate": 4e-3}))

    result = run(study_file(search={**PLAIN, "n_trials": 1}), Late((9, 9), None))
    assert [trial.outcome for trial in stored.trials.all("tiny")] == [Outcome.COMPLETE] * 2
    assert set(result.candidates) == {0, 1}


def test_orders_to_a_finished_study_wait_for_its_resume(study_file, stored):
    run(study_file(search={**PLAIN, "n_trials": 1}), Asking((9, 9), None))
    ask(OrderKind.ENQUEUE, parameters={"learning_rate": 3e-3})
    assert [order.state for order in stored.orders.all("tiny")] == [OrderState.WAITING]
    result = resume_study("tiny", force=True)
    assert stored.trials.get("tiny", 1).parameters["learning_rate"] == 3e-3
    assert 1 in result.candidates
    resume_study("tiny", force=True)
    assert len(stored.trials.all("tiny")) == 2


@pytest.mark.parametrize("where", ["before the queue", "before the answer", "after the answer"])
def test_an_ordered_trial_runs_once_though_the_process_dies_as_it_is_queued(study_file, stored, where, monkeypatch):
    run(study_file(search={**PLAIN, "n_trials": 1}), Asking((9, 9), None))
    ask(OrderKind.ENQUEUE, parameters={"learning_rate": 3e-3})
    order = Search_order = control.StudyContext.answer

    def die(*_, **__):
        raise KeyboardInterrupt

    def die_after(*arguments):
        order(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        if where == "before the queue":
            from sweeper.search.study import Search

            patched.setattr(Search, "order", die)
        else:
            patched.setattr(control.StudyContext, "answer", die if where == "before the answer" else die_after)
        resume_study("tiny", force=True)
    assert Search_order is order
    resume_study("tiny", force=True)
    resume_study("tiny", force=True)
    assert [trial.parameters["learning_rate"] for trial in stored.trials.all("tiny")].count(3e-3) == 1
    assert len(stored.trials.all("tiny")) == 2
    assert [order.state for order in stored.orders.all("tiny")] == [OrderState.DONE]


def test_a_restarted_clone_keeps_its_weights_and_its_order(begin):
    context = begin(search={**PLAIN, "n_trials": 2})
    first = context.search.ask()
    number = context.search.order(7, context.search.values(first.number), clones=first.number, initial=first.number)
    clone = context.search.ask_ordered()
    assert (clone.number, clone.clones, clone.initial) == (number, 0, 0)
    context.search._live.clear()  # the process died here
    context.search.requeue(number)
    again = context.search.ask_ordered()
    assert (again.restarts, again.order, again.clones, again.initial) == (number, 7, 0, 0)
    assert (again.parameters, again.seed) == (clone.parameters, clone.seed)
    assert context.search.order(7, {}) == number  # the order is known, whatever became of its trial


def test_an_ordered_trial_runs_though_the_budget_is_spent(begin):
    context = begin(search={**PLAIN, "n_trials": 1})
    context.search.ask()
    assert context.search.ask() is None
    context.search.order(1, {"learning_rate": 5e-3})
    assert context.search.remaining() == 1
    assert context.search.ask(1.0).parameters["learning_rate"] == 5e-3
    assert context.search.remaining() == 0


def test_trials_that_start_from_weights_are_a_configuration_of_their_own(begin):
    from sweeper.config.trial import TrialResult

    context = begin(search={**PLAIN, "n_trials": 2})
    first = context.search.ask()
    context.search.order(1, context.search.values(0), clones=0, initial=0)
    second = context.search.ask()
    for number, value in ((first.number, 2.0), (second.number, 1.0)):
        times = {"started_at": "2026-01-01T00:00:00+00:00", "finished_at": "2026-01-01T00:00:01+00:00"}
        context.search.tell(number, TrialResult(number=number, outcome=Outcome.COMPLETE, value=value, **times))
    assert [(found.numbers, found.value) for found in context.search.best(3)] == [((1,), 1.0), ((0,), 2.0)]


def test_unknown_studies_and_too_large_orders_are_refused(study_file, stored):
    run(study_file(search={**PLAIN, "n_trials": 1}), Asking((9, 9), None))
    with pytest.raises(StudyStateError, match="did you mean 'tiny'"):
        ask(OrderKind.STOP, study="tinny")
    with pytest.raises(StudyStateError, match="at most"):
        stored.orders.add("tiny", OrderKind.ENQUEUE, actor="a", message="", data={"parameters": {"x": "y" * 20_000}})
