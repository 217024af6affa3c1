"""Optuna's own pruners among trials of the same length, with the numbers their decisions rest on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from optuna import Study
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState

from sweeper.config import search as config
from sweeper.search.pruners.base import DecidingPruner, decision_of, same_length, sign_of, warmup_end
from sweeper.search.study_view import StudyView
from sweeper.store.records import PruningDecision


@dataclass(frozen=True)
class Evidence:
    """The grounds of a decision.

    Attributes:
        value: The trial's value that is compared.
        reason: The rule and its numbers, in words.
        threshold: The value that the trial has to reach; None if there is no single one.
        peers: Numbers and values of the trials compared with.
        ranked: Whether the trial is ranked among them.
    """

    value: float
    reason: str
    threshold: float | None = None
    peers: Sequence[tuple[int, float]] = ()
    ranked: bool = False


Examine = Callable[[FrozenTrial, Sequence[FrozenTrial], float], Evidence | None]
"""Returns the evidence on a trial, given the complete trials of its length and the sign of ``sign_of``; None if the
pruner cannot decide yet."""


class FairPruner(DecidingPruner):
    """Shows one of Optuna's pruners only trials of the same length, and asks it only after warmup.

    Args:
        kind: The pruner's kind in a study file.
        inner: Optuna's pruner, which decides.
        examine: Returns the numbers that ``inner`` decides by.
        in_warmup: Whether it is asked during warmup too.
    """

    def __init__(self, kind: str, inner: BasePruner, examine: Examine, *, in_warmup: bool = False) -> None:
        super().__init__(kind)
        self._inner = inner
        self._examine = examine
        self._in_warmup = in_warmup

    def decide(self, study: Study, trial: FrozenTrial) -> PruningDecision | None:
        """Let the inner pruner decide."""
        step = trial.last_step
        if step is None or (step <= warmup_end(trial) and not self._in_warmup):
            return None
        alike, sign = same_length(trial, study.get_trials(deepcopy=False), itself=True), sign_of(study)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Wilcoxon's, on reports that the best trial lacks
            pruned = bool(self._inner.prune(StudyView(study, alike), trial))
        complete = [other for other in alike if other.state == TrialState.COMPLETE]
        found = self._examine(trial, complete, sign)
        if found is None and not pruned:
            return None
        found = found or Evidence(trial.intermediate_values[step], "")
        return decision_of(
            self.kind,
            trial,
            found.value,
            found.peers,
            found.reason,
            sign=sign,
            pruned=pruned,
            ranked=found.ranked,
            threshold=found.threshold,
        )


def percentile(pruner: config.MedianPruner | config.PercentilePruner) -> Examine:
    """Return what compares a trial's best value with a percentile of the complete trials' values at its progress."""
    share = 50.0 if isinstance(pruner, config.MedianPruner) else pruner.percentile
    name = "median" if share == 50 else f"best {share:g} %"

    def examine(trial: FrozenTrial, complete: Sequence[FrozenTrial], sign: float) -> Evidence | None:
        step = trial.last_step or 0
        peers = [(t.number, t.intermediate_values[step]) for t in complete if step in t.intermediate_values]
        if step < first_step(pruner.start) or len(complete) < pruner.startup_trials or not peers:
            return None
        best = sign * min(sign * value for value in trial.intermediate_values.values())
        threshold = sign * float(np.percentile([sign * value for _, value in peers], share))
        reason = (
            f"At {step} % of its training its best value so far was {best:.4g}; the {name} of {len(peers)} complete "
            f"trials of the same length at that point ends at {threshold:.4g}."
        )
        return Evidence(best, reason, threshold, peers, ranked=True)

    return examine


def patience(pruner: config.PatientPruner) -> Examine:
    """Return what compares a trial's best value of late with its best before."""

    def examine(trial: FrozenTrial, complete: Sequence[FrozenTrial], sign: float) -> Evidence | None:
        losses = [sign * value for _, value in sorted(trial.intermediate_values.items())]
        late = pruner.patience + 1
        if len(losses) <= late:
            return None
        before, after = min(losses[:-late]), min(losses[-late:])
        reason = (
            f"Its best value before the last {late} evaluations was {sign * before:.4g}, its best in them "
            f"{sign * after:.4g}; it may fall behind by {pruner.min_delta:g} at most."
        )
        return Evidence(sign * after, reason, sign * (before + pruner.min_delta))

    return examine


def bounds(pruner: config.ThresholdPruner) -> Examine:
    """Return what compares a trial's last value with fixed bounds."""
    limits = [] if pruner.lower is None else [f"at least {pruner.lower:g}"]
    limits += [] if pruner.upper is None else [f"at most {pruner.upper:g}"]

    def examine(trial: FrozenTrial, complete: Sequence[FrozenTrial], sign: float) -> Evidence | None:
        step = trial.last_step or 0
        if step < first_step(pruner.start):
            return None
        value = trial.intermediate_values[step]
        low = pruner.upper is None or (pruner.lower is not None and value < pruner.lower)
        reason = f"At {step} % of its training its value was {value:.4g}; it has to be {' and '.join(limits)}."
        return Evidence(value, reason, pruner.lower if low else pruner.upper)

    return examine


def signed_rank(pruner: config.WilcoxonPruner) -> Examine:
    """Return what tests a trial's values against those of the best complete trial at the same progress."""

    def examine(trial: FrozenTrial, complete: Sequence[FrozenTrial], sign: float) -> Evidence | None:
        from scipy.stats import wilcoxon  # imported late: the other pruners need no statistics

        best = min(complete, key=lambda other: sign * other.values[0], default=None)
        theirs = {} if best is None else best.intermediate_values
        shared = [step for step in trial.intermediate_values if step in theirs]
        if best is None or len(shared) < max(2, pruner.startup_steps):
            return None
        worse = [sign * (trial.intermediate_values[step] - theirs[step]) for step in shared]
        p = float(wilcoxon(worse, alternative="greater", zero_method="zsplit").pvalue)
        reason = (
            f"Over {len(shared)} evaluations it was compared with trial {best.number}, the best so far: the "
            f"signed-rank test that it is worse gives p = {p:.3g}. It is pruned if p is below {pruner.p_threshold:g}, "
            "unless its mean is the better one."
        )
        step = max(shared)
        peers = [(best.number, theirs[step])]
        return Evidence(trial.intermediate_values[trial.last_step or step], reason, theirs[step], peers)

    return examine


def first_step(start: float) -> int:
    """Return the step of Optuna's from which a pruner decides, given a fraction of the training."""
    return round(100 * start)
