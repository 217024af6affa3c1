"""What every sampler and every pruner must do, on a real SQLite file."""

from __future__ import annotations

import optuna
import pytest
from search_helpers import MIXED, Make, make_space, run_all, run_one

from sweeper.config.trial import Outcome
from sweeper.store.records import TrialKind

SAMPLERS = [
    {"kind": "gp", "startup_trials": 3},
    {"kind": "tpe", "startup_trials": 3},
    "random",
    {"kind": "grid", "points": 3},
    "qmc",
    "cmaes",
]
PRUNERS = [
    "auto",
    "asha",
    "hyperband",
    "median",
    "percentile",
    "patient",
    {"kind": "threshold", "upper": 6.0},
    "wilcoxon",
    "none",
]
CONDITIONAL = make_space(
    learning_rate={"low": 1e-5, "high": 1e-3, "log": True},
    lr_scheduler=["linear", "cosine"],
    warmup_ratio={"low": 0.01, "high": 0.2, "when": {"lr_scheduler": "cosine"}},
    epochs=2,
)
NUMERIC = make_space(
    learning_rate={"low": 1e-5, "high": 1e-3, "log": True}, lora_dropout={"low": 0.0, "high": 0.2}, epochs=2
)
SPACES = {"mixed": MIXED, "conditional": CONDITIONAL, "numeric": NUMERIC}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s if isinstance(s, str) else s["kind"])
def test_every_sampler_fills_the_budget_with_values_of_the_space(make: Make, sampler: object, space: str) -> None:
    ranges = SPACES[space]
    search = make(space=ranges, sampler=sampler, n_trials=10)
    done = run_all(search)
    assert len(done) == 10
    for candidate, _ in done:
        assert all(ranges[name].contains(value) for name, value in candidate.parameters.items())
        if space == "conditional":
            assert ("warmup_ratio" in candidate.parameters) == (candidate.parameters["lr_scheduler"] == "cosine")
        else:
            assert set(candidate.parameters) == set(ranges)
    assert search.remaining() == 0
    assert sum(candidate.kind == TrialKind.CONFIRMATION for candidate, _ in done) == 2


@pytest.mark.parametrize("space", ["mixed", "conditional"])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s if isinstance(s, str) else s["kind"])
def test_same_seed_same_configurations_also_when_stopped_in_the_middle(make: Make, sampler: object, space: str) -> None:
    ranges = SPACES[space]
    straight = run_all(make("straight.db", space=ranges, sampler=sampler, n_trials=10))
    first = make("stopped.db", space=ranges, sampler=sampler, n_trials=10)
    kept = run_all(first, most=6)
    lost = first.ask()  # its process dies here
    assert lost is not None
    second = make("stopped.db", opened=True, space=ranges, sampler=sampler, n_trials=10)
    assert second.interrupted() == [lost.number]
    second.requeue(lost.number)
    rest = run_all(second)
    assert rest[0][0].restarts == lost.number
    assert [(c.parameters, c.seed, c.kind, o) for c, o in kept + rest] == [
        (c.parameters, c.seed, c.kind, o) for c, o in straight
    ]


def test_another_seed_gives_other_configurations(make: Make) -> None:
    one = run_all(make("one.db", sampler="random", seed=1))
    other = run_all(make("other.db", sampler="random", seed=2))
    assert [c.parameters for c, _ in one] != [c.parameters for c, _ in other]
    assert {c.seed for c, _ in one}.isdisjoint(c.seed for c, _ in other)


@pytest.mark.parametrize("pruner", PRUNERS, ids=str)
def test_every_pruner_leaves_a_best_configuration(make: Make, pruner: object) -> None:
    search = make(pruner=pruner, sampler="random", n_trials=14)
    done = run_all(search)
    assert len(done) == 14
    assert search.best(1)[0].confirmations > 0
    assert all(outcome == Outcome.COMPLETE for c, outcome in done if c.kind == TrialKind.CONFIRMATION)
    if pruner in ("auto", "asha", "median", "percentile"):
        assert any(outcome == Outcome.PRUNED for _, outcome in done)
    if pruner in ("none", "patient"):  # these curves improve all along
        assert all(outcome == Outcome.COMPLETE for _, outcome in done)


def test_optuna_opens_the_database_as_it_is(make: Make) -> None:
    search = make(n_trials=8)
    run_all(search)
    storage = search.study._storage._backend
    study = optuna.load_study(study_name="study", storage=storage.url.replace("{", "{{"))
    assert len(study.trials) == 8
    assert study.best_value <= search.best(1)[0].value
    assert study.metric_names == ["eval_loss"]
    plain = optuna.load_study(study_name="study", storage=storage.url)
    plain.ask().suggest_float("learning_rate", 1e-5, 1e-3, log=True)


def test_trials_run_in_parallel_get_different_configurations(make: Make) -> None:
    search = make(n_trials=10, sampler="tpe", pruner="auto")
    together = [search.ask() for _ in range(4)]
    assert len({str(c.parameters) for c in together if c}) == 4
    for candidate in together:
        assert candidate is not None
        run_one(search, candidate)
    assert len(run_all(search)) == 6
