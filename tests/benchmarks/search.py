"""The search's defaults beside Optuna's, on a surrogate of LoRA tuning.

    python tests/benchmarks/search.py [--seeds 30] [--space numeric|mixed] [--only NAME ...]

The surrogate is a loss over six hyperparameters with what makes tuning hard: the best learning rate moves with batch
size and rank, too high a rate is far worse than too low a one, high rates look bad until they decay and low ones
start slowly (so learning curves cross), and equal configurations with other seeds end differently. Every seed is
another task: its optimum lies elsewhere, and never at the known-good points. All trials train for 3 epochs.

The tables give the mean regret (true loss of the chosen configuration above the least possible one), times 1000,
after the epochs of so many full trials, and how much better the chosen one looked than it was (optimism).
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import fmean, stdev
from typing import Any

import optuna
from pydantic import TypeAdapter
from scipy.optimize import minimize

from sweeper.config.evaluation import EvaluationConfig
from sweeper.config.search import SearchConfig
from sweeper.config.space import Space
from sweeper.config.trial import Outcome, TrialResult
from sweeper.search.study import Search

EPOCHS = 3.0
POINTS = 6
BUDGETS = (10, 20, 40, 60)
SPACES: dict[str, dict[str, Any]] = {
    "numeric": {
        "learning_rate": {"low": 2e-5, "high": 5e-3, "log": True},
        "batch_size": {"low": 4, "high": 64, "log": True},
        "lora_rank": {"low": 4, "high": 128, "log": True},
        "lora_dropout": {"low": 0.0, "high": 0.2},
        "weight_decay": {"low": 0.0, "high": 0.1},
        "warmup_ratio": {"low": 0.0, "high": 0.2},
    },
    "mixed": {
        "learning_rate": {"low": 2e-5, "high": 5e-3, "log": True},
        "batch_size": [8, 16, 32],
        "lora_rank": [8, 16, 32, 64, 128],
        "lora_dropout": [0.0, 0.05, 0.1],
        "weight_decay": [0.0, 0.01],
        "warmup_ratio": {"low": 0.0, "high": 0.1},
    },
}
KNOWN_GOOD = (
    {"learning_rate": 2e-4, "batch_size": 16, "lora_rank": 16, "lora_dropout": 0.0, "weight_decay": 0.01},
    {"learning_rate": 2e-4, "batch_size": 16, "lora_rank": 64, "lora_dropout": 0.1, "weight_decay": 0.0},
    {"learning_rate": 5e-4, "batch_size": 32, "lora_rank": 32, "lora_dropout": 0.05, "weight_decay": 0.0},
)


class Task:
    """One surrogate task: a true loss, learning curves towards it, and noise."""

    def __init__(self, seed: int, space: Space) -> None:
        draw = random.Random(f"task:{seed}")
        self.space = space
        self.log_rate = draw.uniform(-3.4, -2.6)
        self.batch_slope = draw.uniform(0.2, 0.6)
        self.rank_slope = draw.uniform(-0.25, 0.1)
        self.log_rank = draw.uniform(1.2, 2.0)
        self.dropout = draw.uniform(0.0, 0.1)
        self.decay = draw.uniform(0.0, 0.1)
        self.warmup = draw.uniform(0.02, 0.12)
        self.least = self._least()

    def loss(self, values: Mapping[str, Any], progress: float = 1.0) -> float:
        """Return the expected evaluation loss after ``progress`` (0 to 1) of the training."""
        batch, rank = math.log10(values["batch_size"] / 16), math.log10(values["lora_rank"])
        best = self.log_rate + self.batch_slope * batch + self.rank_slope * (rank - 1.2)
        u = math.log10(values["learning_rate"]) - best
        final = 0.25 * u**2 + (1.0 * max(0.0, u - 0.3) ** 2)
        final += 0.05 * (rank - self.log_rank) ** 2 + 0.08 * batch**2
        final += 3.0 * (values["lora_dropout"] - self.dropout) ** 2 + 2.0 * (values["weight_decay"] - self.decay) ** 2
        final += (2.0 + 4.0 * max(0.0, u)) * (values["warmup_ratio"] - self.warmup) ** 2
        slow = 0.4 * (math.exp(-4.0 * progress * 10 ** (0.5 * u)) - math.exp(-4.0 * 10 ** (0.5 * u)))
        undecayed = 0.25 * min(4.0, 10 ** (0.7 * u)) * (1 - progress)
        return 1.0 + final + slow + undecayed

    def curve(self, values: Mapping[str, Any], seed: int) -> list[float]:
        """Return what a trial reports: the same luck all along, and fresh noise at each evaluation."""
        draw = random.Random(f"noise:{seed}")
        luck = draw.gauss(0, 0.008)
        steps = range(1, POINTS + 1)
        return [self.loss(values, k / POINTS) + luck * k / POINTS + draw.gauss(0, 0.004) for k in steps]

    def regret(self, values: Mapping[str, Any]) -> float:
        """Return how far the true loss lies above the least possible one."""
        return self.loss(values) - self.least

    def _least(self) -> float:
        """Return the least loss in the space: exact over numbers, every combination of choices tried."""
        names = list(self.space)
        choices = [name for name in names if self.space[name].kind == "choice"]
        combinations: list[dict[str, Any]] = [{}]
        for name in choices:
            combinations = [{**c, name: v} for c in combinations for v in self.space[name].choice]  # type: ignore
        return min(self._least_given(fixed, [n for n in names if n not in choices]) for fixed in combinations)

    def _least_given(self, fixed: dict[str, Any], names: list[str]) -> float:
        ranges = [self.space[name] for name in names]
        bounds = [(math.log(r.low), math.log(r.high)) if r.log else (r.low, r.high) for r in ranges]  # type: ignore

        def of(point: Any) -> float:
            values = {n: math.exp(x) if r.log else x for n, r, x in zip(names, ranges, point, strict=True)}  # type: ignore
            return self.loss(fixed | values)

        middle = [(low + high) / 2 for low, high in bounds]
        return float(minimize(of, middle, bounds=bounds, method="L-BFGS-B").fun)


@dataclass(frozen=True)
class Chosen:
    """What a strategy would pick after a budget: its regret and its optimism, both in loss."""

    regret: float
    optimism: float


Strategy = Callable[[Task, int], list[Chosen]]
"""Runs one strategy on a task with a seed; returns what it picks after each budget."""


def run_sweeper(task: Task, seed: int, *, sampler: str, pruner: str, starts: bool) -> list[Chosen]:
    """Run sweeper's search without confirmation, one long run; pick the best value seen after each budget."""
    config = SearchConfig.model_validate({"sampler": sampler, "pruner": pruner, "n_trials": 100, "confirm": 0})
    search = _search(task, seed, config, starts)
    chosen: list[Chosen] = []
    while len(chosen) < len(BUDGETS):
        _one_trial(task, search, seed)
        while len(chosen) < len(BUDGETS) and search.epochs_spent >= BUDGETS[len(chosen)] * EPOCHS:
            chosen.append(_choose(task, search))
        if search.remaining() == 0:  # pruning stretched the budget over more trials than planned
            more = search.study.get_trials(deepcopy=False)
            config = config.model_copy(update={"n_trials": len(more) + 100})
            search = _search(task, seed, config, starts, storage=search.study._storage)
    return chosen


def run_confirmed(task: Task, seed: int, *, sampler: str, pruner: str, starts: bool) -> list[Chosen]:
    """Run sweeper's search once per budget, its last fifth spent on confirming the best four."""
    chosen = []
    for budget in BUDGETS:
        config = SearchConfig.model_validate({"sampler": sampler, "pruner": pruner, "n_trials": 100, "confirm": 0})
        search = _search(task, seed, config, starts)
        while search.epochs_spent < 0.8 * budget * EPOCHS and search.remaining():
            _one_trial(task, search, seed)
        confirm = max(1, round(0.2 * budget))
        total = len(search.study.get_trials(deepcopy=False)) + confirm
        config = config.model_copy(update={"n_trials": total, "confirm": (confirm + 0.5) / total})
        search = _search(task, seed, config, starts, storage=search.study._storage)
        while _one_trial(task, search, seed):
            pass
        chosen.append(_choose(task, search))
    return chosen


def _search(task: Task, seed: int, config: SearchConfig, starts: bool, storage: Any = None) -> Search:
    known: dict[str, Any] = {"config": config, "space": task.space, "evaluation": EvaluationConfig(), "seed": seed}
    if storage is not None:
        return Search.open("benchmark", storage, **known)
    memory = optuna.storages.InMemoryStorage()
    return Search.create("benchmark", memory, known_good=KNOWN_GOOD if starts else (), **known)


def _one_trial(task: Task, search: Search, seed: int) -> bool:
    candidate = search.ask()
    if candidate is None:
        return False
    curve = task.curve(candidate.parameters, candidate.seed)
    decisions = ((k, search.report(candidate.number, k / POINTS, v)) for k, v in enumerate(curve, 1))
    at = next((k for k, decision in decisions if decision is not None and decision.pruned), None)
    pruned = at is not None and at < POINTS
    result = TrialResult(
        number=candidate.number,
        outcome=Outcome.PRUNED if pruned else Outcome.COMPLETE,
        value=None if pruned else curve[-1],
        epochs_trained=EPOCHS * (at if at is not None and pruned else POINTS) / POINTS,
        started_at="",
        finished_at="",
    )
    search.tell(candidate.number, result)
    return True


def _choose(task: Task, search: Search) -> Chosen:
    best = search.best(1)[0]
    return Chosen(task.regret(best.parameters), task.loss(best.parameters) - best.value)


def run_optuna(
    task: Task, seed: int, *, sampler: Callable[..., Any], pruner: Callable[[], Any] = optuna.pruners.NopPruner
) -> list[Chosen]:
    """Run Optuna as it comes, reporting each evaluation as a step."""
    study = optuna.create_study(sampler=sampler(seed=seed), pruner=pruner())
    spent, chosen = 0.0, []
    while len(chosen) < len(BUDGETS):
        trial = study.ask()
        values = {name: _suggest(trial, name, range_) for name, range_ in task.space.items()}
        curve = task.curve(values, seed * 100_003 + trial.number)
        for k, value in enumerate(curve, 1):
            trial.report(value, k)
            if k < POINTS and trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, curve[-1])
        spent += EPOCHS * k / POINTS
        while len(chosen) < len(BUDGETS) and spent >= BUDGETS[len(chosen)] * EPOCHS:
            best = study.best_trial
            chosen.append(Chosen(task.regret(best.params), task.loss(best.params) - study.best_value))
    return chosen


def _suggest(trial: optuna.Trial, name: str, range_: Any) -> Any:
    if range_.kind == "choice":
        return trial.suggest_categorical(name, range_.choice)
    kind = trial.suggest_int if range_.kind == "int" else trial.suggest_float
    return kind(name, range_.low, range_.high, log=range_.log)


def ours(sampler: str, pruner: str, *, starts: bool = True, confirm: bool = False) -> Strategy:
    """Return a strategy of sweeper's."""
    run = run_confirmed if confirm else run_sweeper
    return partial(run, sampler=sampler, pruner=pruner, starts=starts)


STRATEGIES: dict[str, Strategy] = {
    "Optuna: random": partial(run_optuna, sampler=optuna.samplers.RandomSampler),
    "Optuna: TPE (its default)": partial(run_optuna, sampler=optuna.samplers.TPESampler),
    "Optuna: TPE, median": partial(run_optuna, sampler=optuna.samplers.TPESampler, pruner=optuna.pruners.MedianPruner),
    "Optuna: TPE, successive halving": partial(
        run_optuna, sampler=optuna.samplers.TPESampler, pruner=optuna.pruners.SuccessiveHalvingPruner
    ),
    "sweeper: TPE, no pruner, no starts": ours("tpe", "none", starts=False),
    "sweeper: TPE, halving, no starts": ours("tpe", "auto", starts=False),
    "sweeper: TPE, halving": ours("tpe", "auto"),
    "sweeper: TPE, halving, confirmed": ours("tpe", "auto", confirm=True),
    "sweeper: GP, no pruner, no starts": ours("gp", "none", starts=False),
    "sweeper: GP, no pruner": ours("gp", "none"),
    "sweeper: GP, halving": ours("gp", "auto"),
    "sweeper: auto, auto": ours("auto", "auto"),
    "sweeper: auto, auto, confirmed": ours("auto", "auto", confirm=True),
}


def main() -> None:
    """Run the strategies and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--space", choices=list(SPACES), default="numeric")
    parser.add_argument("--only", nargs="*", default=list(STRATEGIES), metavar="NAME")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = TypeAdapter(Space).validate_python(SPACES[arguments.space])
    tasks = [Task(seed, space) for seed in range(arguments.seeds)]
    print(f"Mean regret (and optimism) x 1000 over {len(tasks)} tasks, {arguments.space} space, full trials' worth:\n")
    print("| search | " + " | ".join(str(budget) for budget in BUDGETS) + " |")
    print("| --- |" + " --- |" * len(BUDGETS), flush=True)
    for name in arguments.only:
        runs = []
        for seed, task in enumerate(tasks):
            print(f"\r{name}: {seed + 1}/{len(tasks)}  ", end="", file=sys.stderr, flush=True)
            runs.append(STRATEGIES[name](task, seed))
        print("\r", end="", file=sys.stderr)
        print(
            f"| {name} | " + " | ".join(_cell([run[i] for run in runs]) for i in range(len(BUDGETS))) + " |", flush=True
        )


def _cell(chosen: list[Chosen]) -> str:
    regrets = [1000 * one.regret for one in chosen]
    error = stdev(regrets) / math.sqrt(len(regrets)) if len(regrets) > 1 else 0.0
    return f"{fmean(regrets):.0f} ± {error:.0f} ({1000 * fmean(one.optimism for one in chosen):.0f})"


if __name__ == "__main__":
    main()
