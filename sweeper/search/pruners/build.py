"""From a study file's pruner to one that compares trials fairly.

Steps are per cent of a trial's own training, so trials are compared at equal progress; and only trials that train
for the same number of epochs are compared, because at equal progress a shorter schedule is further down its
learning-rate decay and looks better than it is. Nothing is pruned during a trial's warmup.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import assert_never

import optuna
from optuna import Study
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweeper.config import search as config
from sweeper.search.attributes import LENGTH, SEED, WARMUP_END_PERCENT
from sweeper.search.curves import first_at_or_after
from sweeper.search.experimental import accept_experimental
from sweeper.search.pruners.rungs import Brackets, Halving, automatic
from sweeper.search.study_view import StudyView

COMPARED = (TrialState.RUNNING, TrialState.PRUNED, TrialState.COMPLETE)


@dataclass(frozen=True, order=True)
class RungStanding:
    """Where a trial stands at the last rung it has reached; sorts the one to promote first to the front.

    Attributes:
        below: The rung, negated.
        value: The trial's value there, smaller is better.
        promoted: Whether it is among those that go on.
    """

    below: int
    value: float
    promoted: bool


class EqualProgressHalving(BasePruner):
    """Asynchronous successive halving (Li et al. 2020, arXiv:1810.05934) at equal progress.

    A trial that reaches a rung goes on if its value is among the best 1/eta of all trials of its length that have
    reached it, running, pruned and complete ones alike; at least one goes on, so the first to arrive does.

    Args:
        halving: The rungs, and how many go on.
    """

    def __init__(self, halving: Halving) -> None:
        self._halving = halving

    @property
    def rungs(self) -> tuple[int, ...]:
        """The rungs, in per cent of training."""
        return self._halving.rungs

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Tell whether the trial's last report, if it is the first at or after a rung, is too weak to go on."""
        step = trial.last_step
        if step is None:
            return False
        before = max((reported for reported in trial.intermediate_values if reported < step), default=0)
        reached = [rung for rung in self.rungs if before < rung <= step and rung > _warmup_end(trial)]
        if not reached:
            return False
        rivals = same_length(trial, study.get_trials(deepcopy=False, states=COMPARED))
        value, sign = trial.intermediate_values[step], _sign(study)
        return any(self._halving.is_weak(sign * value, _values_at(rung, rivals, sign)) for rung in reached)

    def standing(self, study: Study, trial: FrozenTrial) -> RungStanding:
        """Return where a trial that waits at a rung stands among all that have reached it by now."""
        rung = max((rung for rung in self.rungs if rung <= (trial.last_step or 0)), default=0)
        value = _sign(study) * (first_at_or_after(rung, trial.intermediate_values) or 0.0)
        rivals = same_length(trial, study.get_trials(deepcopy=False, states=COMPARED))
        return RungStanding(-rung, value, not self._halving.is_weak(value, _values_at(rung, rivals, _sign(study))))


class EqualProgressHyperband(BasePruner):
    """Hyperband (Li et al. 2018, arXiv:1603.06560): a trial is compared within its bracket, see ``Brackets``."""

    def __init__(self, eta: int) -> None:
        self._brackets = Brackets(eta)
        self._pruners = [EqualProgressHalving(halving) for halving in self._brackets.halvings]

    @property
    def rungs(self) -> tuple[int, ...]:
        """The rungs of all brackets."""
        return tuple(sorted({rung for pruner in self._pruners for rung in pruner.rungs}))

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Tell whether the trial is too weak within its bracket."""
        bracket = self.bracket(trial)
        peers = [other for other in study.get_trials(deepcopy=False) if self.bracket(other) == bracket]
        return self._pruners[bracket].prune(StudyView(study, peers), trial)

    def bracket(self, trial: FrozenTrial) -> int:
        """Return the index of the trial's bracket; 0 prunes earliest."""
        return self._brackets.place(int(trial.user_attrs.get(SEED, trial.number)))


class FairPruner(BasePruner):
    """Shows one of Optuna's pruners only trials of the same length, and asks it only after warmup."""

    def __init__(self, inner: BasePruner) -> None:
        self._inner = inner

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Tell what the inner pruner says."""
        if trial.last_step is None or trial.last_step <= _warmup_end(trial):
            return False
        view = StudyView(study, same_length(trial, study.get_trials(deepcopy=False), itself=True))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Wilcoxon's, on reports that the best trial lacks
            return bool(self._inner.prune(view, trial))


def build_pruner(pruner: config.Pruner) -> BasePruner:
    """Return Optuna's pruner for one named in a study file."""
    with accept_experimental():
        match pruner:
            case config.AutoPruner():
                return EqualProgressHalving(automatic())
            case config.HalvingPruner():
                return EqualProgressHalving(Halving(pruner.eta, pruner.start))
            case config.HyperbandPruner():
                return EqualProgressHyperband(pruner.eta)
            case config.MedianPruner():
                return FairPruner(optuna.pruners.MedianPruner(pruner.startup_trials, _first_step(pruner.start)))
            case config.PercentilePruner():
                percentile = partial(optuna.pruners.PercentilePruner, pruner.percentile)
                return FairPruner(percentile(pruner.startup_trials, _first_step(pruner.start)))
            case config.PatientPruner():
                return FairPruner(optuna.pruners.PatientPruner(None, pruner.patience, pruner.min_delta))
            case config.ThresholdPruner():
                return _threshold(pruner)
            case config.WilcoxonPruner():
                wilcoxon = optuna.pruners.WilcoxonPruner
                return FairPruner(wilcoxon(p_threshold=pruner.p_threshold, n_startup_steps=pruner.startup_steps))
            case config.NoPruner():
                return optuna.pruners.NopPruner()
            case _:
                assert_never(pruner)


def rungs(pruner: config.Pruner) -> tuple[int, ...]:
    """Return where a pruner compares trials, in per cent of their training; nothing where it does so all the time."""
    match build_pruner(pruner):
        case EqualProgressHalving(rungs=found):
            return found
        case EqualProgressHyperband(rungs=found):
            return found
        case _:
            return ()


def _threshold(pruner: config.ThresholdPruner) -> BasePruner:
    if pruner.lower is None and pruner.upper is None:
        raise ValueError("the threshold pruner needs lower, upper or both")
    return optuna.pruners.ThresholdPruner(pruner.lower, pruner.upper, n_warmup_steps=_first_step(pruner.start))


def _first_step(start: float) -> int:
    return round(100 * start)


def same_length(trial: FrozenTrial, trials: Iterable[FrozenTrial], *, itself: bool = False) -> list[FrozenTrial]:
    """Return those of ``trials`` that train for as many epochs as ``trial``, without itself unless asked for."""
    length = trial.user_attrs.get(LENGTH)
    return [
        other for other in trials if other.user_attrs.get(LENGTH) == length and (itself or other.number != trial.number)
    ]


def _warmup_end(trial: FrozenTrial) -> float:
    return float(trial.user_attrs.get(WARMUP_END_PERCENT, 0.0))


def _sign(study: Study) -> float:
    return -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0


def _values_at(rung: int, trials: Iterable[FrozenTrial], sign: float) -> list[float]:
    """Return the values of ``trials`` at a rung, smaller is better; without those not there or in warmup there."""
    found = (first_at_or_after(rung, trial.intermediate_values) for trial in trials if rung > _warmup_end(trial))
    values = (sign * value for value in found if value is not None)
    return [math.inf if math.isnan(value) else value for value in values]
