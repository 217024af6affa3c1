"""Why a trial was pruned, or was not: the pruner's decisions worked out again from what is stored, without Optuna."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, assert_never

import numpy as np

from sweeper.config import search as config
from sweeper.search.pruners.rungs import Brackets, halving_of

Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True)
class Report:
    """A value of the deciding metric, and when it was reported."""

    value: float
    at: datetime


@dataclass(frozen=True)
class PeerTrial:
    """A trial as a pruner sees it.

    Attributes:
        number: Its number.
        length: Epochs it trains for; only trials of the same length are compared.
        seed: Its seed, which says its bracket of Hyperband.
        warmup_end: Where its learning-rate warmup ends, in per cent of its training: nothing is pruned before.
        reports: What it reported by per cent of its training; of others than the one judged only what is asked for.
        counts_until: It is compared with until then; None where it counts for good. Failed trials do not.
        complete_at: When it was complete; None where it is not.
        value: Its final value; None where it is not complete.
    """

    number: int
    length: float
    seed: int
    warmup_end: float
    reports: Mapping[int, Report]
    counts_until: datetime | None = None
    complete_at: datetime | None = None
    value: float | None = None


Others = Callable[[int], Sequence[PeerTrial]]
"""The study's other trials, each with its first report at or after a per cent of its training."""


@dataclass(frozen=True)
class PruningDecision:
    """One decision of the pruner.

    Attributes:
        progress: Where in its training the trial was judged, in per cent.
        value: What it had reported there.
        rung: The rung it had reached; None where the pruner has none.
        compared: Numbers and values of the trials it was compared with.
        place: Its place among itself and those, 1 for the best; None where it was not compared by place.
        going_on: How many of them go on; None likewise.
        threshold: The value it had to be as good as; None where any would have done.
        pruned: Whether the rule says to prune it.
        words: The decision in words.
    """

    progress: int
    value: float
    rung: int | None
    compared: tuple[tuple[int, float], ...]
    place: int | None
    going_on: int | None
    threshold: float | None
    pruned: bool
    words: str


def judgements(
    pruner: config.Pruner, direction: Direction, trial: PeerTrial, others: Others, *, grace_s: float = 0.0
) -> tuple[PruningDecision, ...]:
    """Return every decision that a pruner took on a trial at a rung, or, where it has none, the last decision.

    Args:
        pruner: The study's.
        direction: Which way the deciding metric is better.
        trial: The trial, with all its reports.
        others: The other trials.
        grace_s: Reports of others that came up to so much later count as known: trials that are evaluated together are
            all known before any of them is judged.
    """
    if not trial.reports:
        return ()
    judge = _Judge(direction, trial, others, grace_s)
    halving = halving_of(pruner, trial.seed)
    if halving is not None:
        peers = _bracket_of(pruner)
        reached = [rung for rung in halving.rungs if trial.warmup_end < rung <= max(trial.reports)]
        found = (judge.at_rung(rung, halving.eta, halving.going_on, halving.is_weak, peers) for rung in reached)
        return tuple(judgement for judgement in found if judgement is not None)
    if max(trial.reports) <= trial.warmup_end and not isinstance(pruner, config.ThresholdPruner):
        return ()
    last = judge.last(pruner)
    return () if last is None else (last,)


def _bracket_of(pruner: config.Pruner) -> Callable[[int], int]:
    return Brackets(pruner.eta).place if isinstance(pruner, config.HyperbandPruner) else lambda seed: 0


class _Judge:
    """Works out decisions on one trial."""

    def __init__(self, direction: Direction, trial: PeerTrial, others: Others, grace_s: float) -> None:
        self._sign = 1.0 if direction == "minimize" else -1.0
        self._trial = trial
        self._others = others
        self._grace_s = grace_s

    def at_rung(
        self,
        rung: int,
        eta: int,
        going_on: Callable[[int], int],
        is_weak: Callable[[float, Sequence[float]], bool],
        bracket: Callable[[int], int],
    ) -> PruningDecision | None:
        """Judge the first report at or after a rung."""
        progress = min((step for step in self._trial.reports if step >= rung and step < 100), default=None)
        if progress is None:
            return None  # at its end a trial is not judged any more
        own = self._trial.reports[progress]
        known = [
            (other.number, report.value)
            for other in self._of_same_length(rung)
            if bracket(other.seed) == bracket(self._trial.seed) and rung > other.warmup_end
            for step, report in _first(other.reports, rung)
            if self._is_known(other, report.at, own.at)
        ]
        losses = sorted(math.inf if math.isnan(value) else self._sign * value for _, value in known)
        loss, count = self._sign * own.value, going_on(len(losses))
        weak = is_weak(loss, losses)
        threshold = self._sign * losses[count - 1] if len(losses) >= count else None
        place = 1 + sum(other < loss for other in losses)
        words = _rung_words(rung, progress, own.value, place, len(losses), count, eta, threshold, weak)
        return PruningDecision(progress, own.value, rung, tuple(known), place, count, threshold, weak, words)

    def last(self, pruner: config.Pruner) -> PruningDecision | None:
        """Judge the last report before the end by a pruner without rungs."""
        progress = max((step for step in self._trial.reports if step < 100), default=None)
        if progress is None:
            return None
        match pruner:
            case config.MedianPruner():
                return self._percentile(progress, 50.0, pruner.startup_trials, pruner.start)
            case config.PercentilePruner():
                return self._percentile(progress, pruner.percentile, pruner.startup_trials, pruner.start)
            case config.PatientPruner():
                return self._patience(progress, pruner.patience, pruner.min_delta)
            case config.ThresholdPruner():
                return self._bounds(progress, pruner)
            case config.WilcoxonPruner():
                return self._signed_rank(progress, pruner)
            case config.AutoPruner() | config.HalvingPruner() | config.HyperbandPruner() | config.NoPruner():
                return None  # those with rungs are judged there, and none at all decides nothing
            case _:
                assert_never(pruner)

    def _percentile(self, progress: int, percentile: float, startup: int, start: float) -> PruningDecision | None:
        """Compare the best so far with a percentile of the complete trials' values at the same progress."""
        at = self._trial.reports[progress].at
        done = [other for other in self._of_same_length(progress) if self._is_complete(other, at)]
        if not done or len(done) < startup or progress < round(100 * start):
            return None
        known = [(other.number, other.reports[progress].value) for other in done if progress in other.reports]
        losses = np.array([self._sign * value for _, value in known], dtype=np.float64)
        best = min(self._losses(progress), default=math.nan)
        threshold = float(np.nanpercentile(losses, percentile)) if np.isfinite(losses).any() else math.nan
        pruned = math.isnan(best) or best > threshold
        share = "median" if percentile == 50 else f"best {percentile:g} %"
        words = (
            f"At {progress} % of its training its best value so far was {self._sign * best:.4g}; the {share} of "
            f"{len(known)} complete trials of the same length there ends at {self._sign * threshold:.4g}."
        )
        place = 1 + int((losses < best).sum())
        value = self._sign * best
        return PruningDecision(
            progress, value, None, tuple(known), place, None, self._sign * threshold, pruned, _ended(words, pruned)
        )

    def _patience(self, progress: int, patience: int, min_delta: float) -> PruningDecision | None:
        losses = self._losses(progress)
        if len(losses) <= patience + 1:
            return None
        before, after = min(losses[: -patience - 1]), min(losses[-patience - 1 :])
        pruned = before + min_delta < after
        words = (
            f"Its best value before the last {patience + 1} evaluations was {self._sign * before:.4g}, its best in "
            f"them {self._sign * after:.4g}; it has to improve again within {patience} evaluations"
            f"{f' by {min_delta:g}' if min_delta else ''}."
        )
        threshold = self._sign * (before + min_delta)
        return PruningDecision(
            progress, self._sign * after, None, (), None, None, threshold, pruned, _ended(words, pruned)
        )

    def _bounds(self, progress: int, pruner: config.ThresholdPruner) -> PruningDecision | None:
        if progress < round(100 * pruner.start):
            return None
        value = self._trial.reports[progress].value
        low = -math.inf if pruner.lower is None else pruner.lower
        high = math.inf if pruner.upper is None else pruner.upper
        pruned = math.isnan(value) or not low <= value <= high
        allowed = " and ".join(
            [f"at least {low:g}"] * (pruner.lower is not None) + [f"at most {high:g}"] * (pruner.upper is not None)
        )
        words = f"At {progress} % of its training its value was {value:.4g}; it has to be {allowed}."
        threshold = pruner.upper if pruner.upper is not None and not value < low else pruner.lower
        return PruningDecision(progress, value, None, (), None, None, threshold, pruned, _ended(words, pruned))

    def _signed_rank(self, progress: int, pruner: config.WilcoxonPruner) -> PruningDecision | None:
        """Test the trial's reports against those of the best complete trial at the same progress."""
        from scipy.stats import wilcoxon  # imported late: the other pruners need no statistics

        own = self._trial.reports
        at = own[progress].at
        steps = sorted(step for step in own if step <= progress)
        per_step = [{other.number: other for other in self._of_same_length(step)} for step in steps]
        done = [other for other in per_step[0].values() if self._is_complete(other, at)] if per_step else []
        best = min(done, key=lambda other: self._sign * (other.value or 0.0), default=None)
        if best is None:
            return None
        pairs = [
            (own[step].value, found[best.number].reports[step].value)
            for step, found in zip(steps, per_step, strict=True)
            if best.number in found and step in found[best.number].reports
        ]
        if len(pairs) < max(2, pruner.startup_steps):
            return None
        worse = [self._sign * (mine - theirs) for mine, theirs in pairs]
        p = float(wilcoxon(worse, alternative="greater", zero_method="zsplit").pvalue)
        pruned = p < pruner.p_threshold
        words = (
            f"Over {len(pairs)} evaluations it was compared with the best trial until then, {best.number}: the "
            f"signed-rank test that it is worse gives p = {p:.3g}, and below {pruner.p_threshold:g} it is pruned."
        )
        theirs = pairs[-1][1]
        return PruningDecision(
            progress, own[progress].value, None, ((best.number, theirs),), None, None, theirs, pruned, words
        )

    def _losses(self, progress: int) -> list[float]:
        """Return the trial's values up to a point in order, smaller is better, without those that are no number."""
        values = (
            self._sign * self._trial.reports[step].value for step in sorted(self._trial.reports) if step <= progress
        )
        return [value for value in values if not math.isnan(value)]

    def _of_same_length(self, progress: int) -> list[PeerTrial]:
        trial = self._trial
        return [
            other for other in self._others(progress) if other.number != trial.number and other.length == trial.length
        ]

    def _is_known(self, other: PeerTrial, reported: datetime, judged: datetime) -> bool:
        if other.counts_until is not None and other.counts_until < judged:
            return False
        return (reported - judged).total_seconds() <= self._grace_s

    def _is_complete(self, other: PeerTrial, at: datetime) -> bool:
        return other.complete_at is not None and (other.complete_at - at).total_seconds() <= self._grace_s


def _first(reports: Mapping[int, Report], rung: int) -> list[tuple[int, Report]]:
    """Return the first report at or after a rung, if there is one."""
    return sorted((item for item in reports.items() if item[0] >= rung), key=lambda item: item[0])[:1]


def _rung_words(
    rung: int,
    progress: int,
    value: float,
    place: int,
    rivals: int,
    going_on: int,
    eta: int,
    threshold: float | None,
    weak: bool,
) -> str:
    where = f"At the rung of {rung} % of training" + (f" (evaluated at {progress} %)" if progress != rung else "")
    if rivals == 0:
        return f"{where} its value was {value:.4g}. No trial of the same length had come so far, so it went on."
    needed = "" if threshold is None else f", which took {threshold:.4g} or better"
    words = (
        f"{where} its value was {value:.4g}: place {place} of {rivals + 1} trials of the same length that had come so "
        f"far. One in {eta} goes on, so the best {going_on} went on{needed}."
    )
    return _ended(words, weak)


def _ended(words: str, pruned: bool) -> str:
    return f"{words} So it was {'pruned' if pruned else 'kept'}."
