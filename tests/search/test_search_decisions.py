"""A pruner's decision says on what it rests: rung, rank, threshold and peers."""

from __future__ import annotations

import operator
import random
from collections import defaultdict
from typing import Any

import optuna
import pytest
from search_helpers import Make, make_space, result

from sweeper.config.evaluation import EvaluationConfig
from sweeper.config.trial import Outcome
from sweeper.search.pruners.base import MOST_PEERS
from sweeper.search.pruners.halving import EqualProgressHalving
from sweeper.search.study import Search
from sweeper.store import PruningDecision, TrialKind

SPACE = make_space(learning_rate={"low": 1e-5, "high": 1e-1, "log": True}, epochs=[1, 2], batch_size=8)
POINTS = 10
METRIC = {"minimize": "eval_loss", "maximize": "exact_match"}
PRUNERS: list[Any] = [
    "auto",
    {"kind": "asha", "eta": 3, "start": 0.1},
    {"kind": "hyperband", "eta": 3},
    {"kind": "median", "startup_trials": 3, "start": 0.2},
    {"kind": "percentile", "percentile": 40, "startup_trials": 2, "start": 0.2},
    {"kind": "patient", "patience": 2, "min_delta": 0.05},
    {"kind": "threshold", "upper": 2.2, "lower": 0.1, "start": 0.1},
    {"kind": "wilcoxon", "p_threshold": 0.2, "startup_steps": 3},
]


class Runner:
    """Runs the trials of a search, and keeps values, decisions and outcomes by trial."""

    def __init__(self, search: Search, direction: str) -> None:
        self.search, self.direction = search, direction
        self.decisions: dict[int, list[PruningDecision]] = defaultdict(list)
        self.outcomes: dict[int, Outcome] = {}
        self.confirmations: set[int] = set()

    def value(self, number: int, point: int) -> float:
        draw = random.Random(f"{number}:{point}").gauss(0, 0.2)
        quality = random.Random(number).random() + draw + 2 / point
        return quality if self.direction == "minimize" else 1 / (1 + quality**2)

    def report(self, number: int, point: int) -> bool:
        decision = self.search.report(number, point / POINTS, self.value(number, point))
        if decision is not None:
            self.decisions[number].append(decision)
        return decision is not None and decision.pruned

    def end(self, number: int, outcome: Outcome) -> None:
        value = self.value(number, POINTS) if outcome is Outcome.COMPLETE else None
        self.outcomes[number] = outcome
        self.search.tell(number, result(number, outcome, value, epochs_trained=1.0))

    def run(self, slots: int) -> None:
        """Run several at a time, all evaluated before any is judged; every seventh trial fails."""
        running: dict[int, int] = {}
        while True:
            while len(running) < slots and (candidate := self.search.ask()) is not None:
                running[candidate.number] = 0
                self.confirmations |= {candidate.number} if candidate.kind is TrialKind.CONFIRMATION else set()
            if not running:
                return
            for number in running:
                running[number] += 1
                self.search.announce(number, running[number] / POINTS, self.value(number, running[number]))
            for number, point in list(running.items()):
                pruned = self.report(number, point)
                if pruned or point == POINTS or number % 7 == 5:
                    failed = not pruned and number % 7 == 5
                    self.end(number, Outcome.PRUNED if pruned else Outcome.FAILED if failed else Outcome.COMPLETE)
                    del running[number]


def ran(make: Make, pruner: Any, direction: str = "minimize", slots: int = 1) -> Runner:
    evaluation = EvaluationConfig(metric=METRIC[direction])
    search = make(space=SPACE, evaluation=evaluation, n_trials=24, sampler="random", pruner=pruner, confirm=0.1)
    runner = Runner(search, direction)
    runner.run(slots)
    return runner


@pytest.mark.parametrize(("direction", "slots"), [("minimize", 1), ("maximize", 4)])
@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda pruner: pruner if isinstance(pruner, str) else pruner["kind"])
def test_every_decision_says_what_it_rests_on(make: Make, pruner: Any, direction: str, slots: int) -> None:
    runner = ran(make, pruner, direction, slots)
    kind = pruner if isinstance(pruner, str) else pruner["kind"]
    decisions = [decision for found in runner.decisions.values() for decision in found]
    assert {decision.pruned for decision in decisions} == {True, False}, "else nothing was decided"
    failed = {number for number, outcome in runner.outcomes.items() if outcome is Outcome.FAILED}
    worse = operator.gt if direction == "minimize" else operator.lt
    for number, outcome in runner.outcomes.items():
        found = runner.decisions[number]
        pruned = outcome is Outcome.PRUNED
        assert [decision.pruned for decision in found] == [False] * (len(found) - pruned) + [True] * pruned
        if number in runner.confirmations:
            assert not found, "a confirmation is never judged"
        for decision in found:
            assert decision.pruner == kind
            assert decision.reason.endswith("Decision: prune." if decision.pruned else "Decision: keep.")
            peers = [peer for peer, _ in decision.compared]
            assert len(peers) == min(decision.peers, MOST_PEERS) and not {number, *failed} & set(peers)
            if decision.rung is not None:
                assert decision.rung <= decision.progress and (decision.continuing or 0) >= 1
                assert decision.pruned == ((decision.rank or 0) > (decision.continuing or 0))
            if decision.threshold is not None and kind not in ("wilcoxon", "threshold"):
                assert decision.pruned == worse(decision.value, decision.threshold)
            if decision.rank is not None and decision.peers <= MOST_PEERS:
                assert decision.rank == 1 + sum(worse(decision.value, value) for _, value in decision.compared)
    assert (kind in ("auto", "asha", "hyperband")) == all(decision.rung is not None for decision in decisions)


def test_a_rung_records_the_values_it_compared() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(pruner=(pruner := EqualProgressHalving(2, 1 / 3, "auto")))
    decisions = []
    for value in (5.0, 6.0, 4.0):
        trial = study.ask()
        trial.report(value, 35)
        decisions.append(pruner.decide(study, study.trials[trial.number]))
    first, second, third = decisions
    assert first == PruningDecision(
        progress=35,
        pruner="auto",
        rung=33,
        value=5.0,
        rank=1,
        peers=0,
        continuing=1,
        threshold=None,
        pruned=False,
        reason="At the 33 % rung (evaluated at 35 %) its value was 5; no other trial of the same length had got there "
        "yet. Decision: keep.",
        compared=(),
    )
    assert second is not None and third is not None
    assert (second.rank, second.continuing, second.threshold, second.pruned) == (2, 1, 5.0, True)
    assert "its value of 6 ranked 2 of 2 trials" in second.reason and "5 or better" in second.reason
    assert (third.rank, third.threshold, third.pruned, third.compared) == (1, 5.0, False, ((0, 5.0), (1, 6.0)))


def test_a_study_without_a_pruner_decides_nothing(make: Make) -> None:
    assert not ran(make, "none").decisions


def test_of_many_peers_the_best_are_recorded() -> None:
    study = optuna.create_study(pruner=(pruner := EqualProgressHalving(2, 0.5)), direction="maximize")
    for value in range(MOST_PEERS + 5):
        trial = study.ask()
        trial.report(float(value), 50)
    decision = pruner.decide(study, study.trials[0])
    assert decision is not None and decision.pruned
    assert (decision.rank, decision.peers) == (MOST_PEERS + 5, MOST_PEERS + 4)
    assert decision.compared[0] == (MOST_PEERS + 4, MOST_PEERS + 4.0) and len(decision.compared) == MOST_PEERS
