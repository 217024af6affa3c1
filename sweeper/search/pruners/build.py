"""The pruner of a study file, as one of Optuna's that compares trials fairly.

Steps are per cent of a trial's own training, so trials are compared at equal progress; and only trials that train
for the same number of epochs are compared, because at equal progress a shorter schedule is further down its
learning-rate decay and looks better than it is. Nothing is pruned during a trial's warmup.
"""

from __future__ import annotations

from typing import assert_never

import optuna
from optuna.pruners import BasePruner

from sweeper.config import search as config
from sweeper.search.experimental import accept_experimental
from sweeper.search.pruners import fair
from sweeper.search.pruners.fair import FairPruner
from sweeper.search.pruners.halving import EqualProgressHalving, EqualProgressHyperband


def build_pruner(pruner: config.Pruner) -> BasePruner:
    """Return Optuna's pruner for one named in a study file.

    Raises:
        ValueError: If its settings do not fit.
    """
    of = optuna.pruners
    with accept_experimental():
        match pruner:
            case config.AutoPruner():
                return EqualProgressHalving(2, 1 / 3, pruner.kind)  # measured in tests/benchmarks/search.py
            case config.HalvingPruner():
                return EqualProgressHalving(pruner.eta, pruner.start)
            case config.HyperbandPruner():
                return EqualProgressHyperband(pruner.eta)
            case config.MedianPruner() | config.PercentilePruner():
                share = 50.0 if isinstance(pruner, config.MedianPruner) else pruner.percentile
                inner = of.PercentilePruner(share, pruner.startup_trials, fair.first_step(pruner.start))
                return FairPruner(pruner.kind, inner, fair.percentile(pruner))
            case config.PatientPruner():
                patient = of.PatientPruner(None, pruner.patience, pruner.min_delta)
                return FairPruner(pruner.kind, patient, fair.patience(pruner))
            case config.ThresholdPruner():
                threshold = of.ThresholdPruner(pruner.lower, pruner.upper, fair.first_step(pruner.start))
                return FairPruner(pruner.kind, threshold, fair.bounds(pruner), in_warmup=True)
            case config.WilcoxonPruner():
                wilcoxon = of.WilcoxonPruner(p_threshold=pruner.p_threshold, n_startup_steps=pruner.startup_steps)
                return FairPruner(pruner.kind, wilcoxon, fair.signed_rank(pruner))
            case config.NoPruner():
                return of.NopPruner()
            case _:
                assert_never(pruner)


def rungs(pruner: config.Pruner, seed: int | None = None) -> tuple[int, ...]:
    """Return where a pruner compares trials, in per cent of their training; nothing where it does so all the time.

    With the seed of a trial, only where it may compare that one.
    """
    match build_pruner(pruner):
        case EqualProgressHyperband() as hyperband if seed is not None:
            return hyperband.bracket(seed).rungs
        case EqualProgressHalving(rungs=found) | EqualProgressHyperband(rungs=found):
            return found
        case _:
            return ()
