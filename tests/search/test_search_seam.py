"""Ask, report, tell: outcomes, budgets, starts, confirmations and interruptions, on a real SQLite file."""

from __future__ import annotations

import math

import pytest
from optuna.trial import TrialState
from search_helpers import MIXED, Make, make_space, result, run_all, run_one

from sweeper.config.evaluation import EvaluationConfig
from sweeper.config.trial import Outcome
from sweeper.errors import StudyStateError, UserError
from sweeper.store.records import TrialKind

RATE = make_space(learning_rate={"low": 1e-5, "high": 1e-3, "log": True}, lora_rank=[8, 64])


def test_starts_run_first_clipped_and_once_and_are_at_most_a_third(make: Make) -> None:
    search = make(
        space=RATE,
        n_trials=9,
        enqueue=({"learning_rate": 3e-4, "lora_rank": 8},),
        known_good=(
            {"learning_rate": 3e-4, "lora_rank": 8},
            {"learning_rate": 1.0, "lora_rank": 256, "unknown": 1},
            {"learning_rate": 2e-4},
            {"learning_rate": 1e-4},
        ),
    )
    done = [candidate for candidate, _ in run_all(search)]
    assert [c.kind for c in done].count(TrialKind.ENQUEUED) == 3
    assert done[0].parameters == {"learning_rate": 3e-4, "lora_rank": 8}
    assert done[1].parameters == {"learning_rate": 1e-3, "lora_rank": 64}
    assert done[2].parameters["learning_rate"] == 2e-4
    assert done[2].parameters["lora_rank"] in (8, 64)


@pytest.mark.parametrize("enqueue", [{"learning_rate": 0.5}, {"lora_rank": 16}, {"learning_rat": 1e-4}])
def test_an_enqueued_value_outside_the_space_is_refused_and_nothing_is_written(make: Make, enqueue: object) -> None:
    with pytest.raises(UserError, match=r"search\.enqueue\.0\.l"):
        make(space=RATE, enqueue=(enqueue,))
    with pytest.raises(StudyStateError, match="no search of a study"):
        make(space=RATE, opened=True)


def test_a_study_is_created_once(make: Make) -> None:
    make()
    with pytest.raises(StudyStateError, match="already"):
        make()


def test_a_single_trial_is_enough(make: Make) -> None:
    search = make(n_trials=1)
    assert len(run_all(search)) == 1
    assert search.best(3)[0].numbers == (0,)


@pytest.mark.parametrize(
    "sampler", [{"kind": "gp", "startup_trials": 2}, {"kind": "tpe", "startup_trials": 2}, "cmaes"]
)
@pytest.mark.parametrize("outcome", [Outcome.INFEASIBLE, Outcome.DIVERGED, Outcome.FAILED, Outcome.PRUNED])
def test_a_study_where_nothing_completes_ends_without_a_best(make: Make, sampler: object, outcome: Outcome) -> None:
    search = make(space=RATE, n_trials=5, sampler=sampler)
    while (candidate := search.ask()) is not None:
        search.report(candidate.number, 0.5, 1.0)
        search.tell(candidate.number, result(candidate.number, outcome, reason="because"))
    assert search.best(1) == []
    assert search.remaining() == 0
    assert [trial.user_attrs["reason"] for trial in search.study.trials] == ["because"] * 5
    expected = TrialState.FAIL if outcome == Outcome.FAILED else TrialState.PRUNED
    assert {trial.state for trial in search.study.trials} == {expected}


@pytest.mark.parametrize("sampler", ["gp", "tpe"])
def test_infeasible_configurations_are_returned_to_less_than_failed_ones(make: Make, sampler: str) -> None:
    """The objective pulls into the region that does not fit, so both return to it; infeasible ones clearly less."""
    space = make_space(learning_rate={"low": 1e-5, "high": 1e-3, "log": True}, x={"low": 0.0, "high": 1.0})
    returns = {}
    for outcome in (Outcome.INFEASIBLE, Outcome.FAILED):
        returns[outcome] = 0
        for seed in (1, 2):
            search = make(f"{outcome}{seed}.db", space=space, sampler=sampler, n_trials=22, confirm=0, seed=seed)
            while (candidate := search.ask()) is not None:
                x = float(candidate.parameters["x"])  # type: ignore[arg-type]
                fits = x <= 0.6
                returns[outcome] += candidate.number >= 10 and not fits
                number = candidate.number
                search.tell(number, result(number, value=1 - x) if fits else result(number, outcome, reason="memory"))
    assert returns[Outcome.INFEASIBLE] <= returns[Outcome.FAILED] - 4


def test_a_complete_trial_without_its_metric_failed(make: Make) -> None:
    search = make(n_trials=3)
    for value in (None, math.inf, math.nan):
        candidate = search.ask()
        assert candidate is not None
        broken = result(candidate.number).model_copy(update={"value": value})
        search.tell(candidate.number, broken)
    assert {trial.state for trial in search.study.trials} == {TrialState.FAIL}
    assert "eval_loss" in search.study.trials[0].user_attrs["reason"]


def test_confirmations_go_round_robin_over_the_best_with_fresh_seeds(make: Make) -> None:
    search = make(n_trials=20, confirm=0.3, confirm_top=4, sampler="random", pruner="none")
    done = run_all(search)
    first = sorted((search.study.trials[c.number].value, c.number) for c, _ in done if c.kind != TrialKind.CONFIRMATION)
    confirms = [c.confirms for c, _ in done if c.kind == TrialKind.CONFIRMATION]
    top = [number for _, number in first[:4]]
    assert confirms == [*top, *top[:2]]
    assert len({c.seed for c, _ in done}) == 20
    best = search.best(20)
    assert [b.confirmations > 0 for b in best] == [True] * 4 + [False] * 10
    assert best[0].value == pytest.approx(sum(best[0].values) / len(best[0].values))
    assert len(best[0].numbers) == 1 + best[0].confirmations


def test_ties_are_broken_by_who_came_first(make: Make) -> None:
    search = make(n_trials=6, confirm=0)
    while (candidate := search.ask()) is not None:
        assert (decision := search.report(candidate.number, 1 / 3, 1.0)) and not decision.pruned
        search.tell(candidate.number, result(candidate.number, value=1.0))
    assert [found.numbers[0] for found in search.best(6)] == sorted(found.numbers[0] for found in search.best(6))
    assert search.best(1)[0].numbers[0] == 0


def test_a_larger_metric_can_be_better(make: Make) -> None:
    search = make(n_trials=6, confirm=0, evaluation=EvaluationConfig(metric="exact_match"))
    for value in range(6):
        candidate = search.ask()
        assert candidate is not None
        decision = search.report(candidate.number, 0.5, value / 10)
        assert decision and not decision.pruned, "each is better than those before"
        search.tell(candidate.number, result(candidate.number, value=value / 10))
    assert search.best(1)[0].value == 0.5


def test_several_objectives_give_a_front_and_nothing_is_pruned_or_confirmed(make: Make) -> None:
    evaluation = EvaluationConfig(metric="exact_match", objectives=("adapter_size", "training_time"))
    search = make(n_trials=8, evaluation=evaluation)
    while (candidate := search.ask()) is not None:
        assert candidate.kind != TrialKind.CONFIRMATION
        assert search.report(candidate.number, 0.5, 0.0) is None
        number = candidate.number
        told = result(number, value=number / 10, adapter_bytes=number, train_seconds=1.0)
        search.tell(number, told)
    front = search.front()
    assert [point.number for point in front] == [7, 6, 5, 4, 3, 2, 1, 0]
    assert front[0].values == (0.7, 7.0, 1.0)


def test_cmaes_with_several_objectives_is_refused(make: Make) -> None:
    with pytest.raises(UserError, match="one objective"):
        make(sampler="cmaes", evaluation=EvaluationConfig(objectives=("latency",)))


def test_the_search_ends_when_the_grid_does(make: Make) -> None:
    space = make_space(learning_rate=[1e-4, 2e-4], lora_rank=[8, 16], epochs=1)
    search = make(space=space, sampler="grid", n_trials=30, confirm=0)
    assert search.remaining() == 4
    done = run_all(search)
    assert len({str(c.parameters) for c, _ in done}) == len(done) == 4
    assert search.remaining() == 0


def test_a_grid_beyond_reason_is_refused(make: Make) -> None:
    space = make_space(**{f"p{i}": {"low": 0.0, "high": 1.0} for i in range(9)})
    with pytest.raises(UserError, match="combinations"):
        make(space=space, sampler={"kind": "grid", "points": 10})


def test_an_interrupted_confirmation_stays_one_and_costs_no_trial(make: Make) -> None:
    search = make(n_trials=10, sampler="random")
    run_all(search, most=8)
    lost = search.ask()
    assert lost is not None and lost.kind == TrialKind.CONFIRMATION
    search.tell(lost.number, result(lost.number, Outcome.INTERRUPTED, epochs_trained=1.5))
    spent = search.epochs_spent
    assert search.interrupted() == [lost.number]
    again = make(opened=True, n_trials=10, sampler="random")
    again.requeue(lost.number)
    assert again.interrupted() == []
    with pytest.raises(StudyStateError, match="not interrupted"):
        again.requeue(lost.number)
    restarted = again.ask()
    assert restarted is not None
    assert (restarted.confirms, restarted.seed, restarted.parameters) == (lost.confirms, lost.seed, lost.parameters)
    assert restarted.restarts == lost.number
    run_one(again, restarted)
    run_all(again)
    assert again.epochs_spent > spent
    finished = [trial for trial in again.study.trials if trial.user_attrs.get("reason") != "interrupted"]
    assert len(finished) == 10


def test_a_trial_of_another_process_cannot_be_told(make: Make) -> None:
    lost = make().ask()
    assert lost is not None
    other = make(opened=True)
    with pytest.raises(StudyStateError, match="not running in this process"):
        other.tell(lost.number, result(lost.number, value=1.0))


def test_a_trial_whose_result_outlived_its_process_is_told_by_the_next(make: Make) -> None:
    lost = make().ask()
    assert lost is not None
    other = make(opened=True)
    other.take_up(lost.number)
    other.tell(lost.number, result(lost.number, value=1.0))
    assert other.interrupted() == []
    assert other.best(1)[0].parameters == lost.parameters
    with pytest.raises(StudyStateError, match="not interrupted"):
        other.take_up(lost.number)


def test_a_process_that_died_while_sampling_samples_the_same_again(make: Make) -> None:
    expected = make("whole.db", sampler="random").ask()
    search = make("torn.db", sampler="random")
    trial_entry = search._schedule.next([])
    assert trial_entry is not None
    trial_entry.put(search.study, 7)
    search.study.ask()  # popped, nothing suggested
    again = make("torn.db", opened=True, sampler="random")
    again.requeue(0)
    candidate = again.ask()
    assert candidate is not None and expected is not None
    assert (candidate.parameters, candidate.seed) == (expected.parameters, expected.seed)


def test_equal_parameters_are_one_configuration(make: Make) -> None:
    search = make(space=make_space(lora_rank=[8, 16]), n_trials=8, confirm=0, sampler="random", pruner="none")
    while (candidate := search.ask()) is not None:
        search.tell(candidate.number, result(candidate.number, value=float(candidate.parameters["lora_rank"])))  # type: ignore[arg-type]
    best = search.best(5)
    assert [found.parameters["lora_rank"] for found in best] == [8, 16]
    assert sum(len(found.numbers) for found in best) == 8


def test_values_come_back_as_they_were_chosen(make: Make) -> None:
    search = make(n_trials=6)
    done = {c.number: c.parameters for c, _ in run_all(search)}
    for found in search.best(10):
        assert found.parameters == done[found.numbers[0]]
        assert found.parameters["target_modules"] in MIXED["target_modules"].choice  # type: ignore[union-attr]


def test_a_trial_is_as_long_as_its_own_alternative_says(make: Make) -> None:
    lengths = {"lora": 3, "qlora": 2}
    scoped = {f"{label}.epochs": {"value": n, "when": {"adapter": [label]}} for label, n in lengths.items()}
    warmup = {"qlora.warmup_ratio": {"value": 0.25, "when": {"adapter": ["qlora"]}}}
    search = make(space=make_space(adapter=[*lengths], **scoped, **warmup), n_trials=8, confirm=0)
    seen = set()
    for _ in range(8):
        candidate = search.ask()
        label = candidate.parameters["adapter"]
        known = search.study.get_trials(deepcopy=False)[candidate.number].user_attrs
        assert (known["length"], known["warmup_end_percent"]) == (lengths[label], 25.0 if label == "qlora" else 0.0)
        seen.add(label)
    assert seen == set(lengths)
