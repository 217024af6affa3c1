"""The contract of a pruner: a decision with its grounds, to be recorded, instead of a bare yes or no."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence

from optuna import Study
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from sweeper.search.attributes import LENGTH, WARMUP_END_PERCENT
from sweeper.store.records import PruningDecision

MOST_PEERS = 20
"""Peers that are recorded with a decision: the best of those that the trial was compared with."""


class DecidingPruner(BasePruner):
    """A pruner that gives the grounds of its decisions.

    Args:
        kind: Its kind in a study file.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind

    @abstractmethod
    def decide(self, study: Study, trial: FrozenTrial) -> PruningDecision | None:
        """Decide on a trial after its last report; None if this pruner does not decide there."""

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Return whether to prune the trial; what Optuna calls."""
        decision = self.decide(study, trial)
        return decision is not None and decision.pruned


def decision_of(
    kind: str,
    trial: FrozenTrial,
    value: float,
    peers: Sequence[tuple[int, float]],
    reason: str,
    *,
    sign: float,
    pruned: bool,
    ranked: bool = True,
    rung: int | None = None,
    continuing: int | None = None,
    threshold: float | None = None,
) -> PruningDecision:
    """Return the record of a decision; ``peers`` are all trials compared with, ``sign`` is -1 to maximize."""
    best_first = sorted(peers, key=lambda peer: (sign * peer[1], peer[0]))
    return PruningDecision(
        progress=trial.last_step or 0,
        pruner=kind,
        rung=rung,
        value=value,
        rank=1 + sum(sign * other < sign * value for _, other in peers) if ranked else None,
        peers=len(peers),
        continuing=continuing,
        threshold=threshold,
        pruned=pruned,
        reason=f"{reason} Decision: {'prune' if pruned else 'keep'}.",
        compared=tuple(best_first[:MOST_PEERS]),
    )


def same_length(trial: FrozenTrial, trials: Iterable[FrozenTrial], *, itself: bool = False) -> list[FrozenTrial]:
    """Return those of ``trials`` that train for as many epochs as ``trial``, without itself unless asked for."""
    length = trial.user_attrs.get(LENGTH)
    return [
        other for other in trials if other.user_attrs.get(LENGTH) == length and (itself or other.number != trial.number)
    ]


def warmup_end(trial: FrozenTrial) -> float:
    """Return where a trial's learning-rate warmup ends, in per cent of its training."""
    return float(trial.user_attrs.get(WARMUP_END_PERCENT, 0.0))


def sign_of(study: Study) -> float:
    """Return what makes smaller values better: 1 to minimize, -1 to maximize."""
    return -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
