"""Successive halving and Hyperband at equal progress."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from sweeper.search.attributes import SEED
from sweeper.search.curves import first_at_or_after, percent
from sweeper.search.pruners.base import DecidingPruner, decision_of, same_length, sign_of, warmup_end
from sweeper.search.study_view import StudyView
from sweeper.store.records import PruningDecision

COMPARED = (TrialState.RUNNING, TrialState.PRUNED, TrialState.COMPLETE)


@dataclass(frozen=True, order=True)
class RungStanding:
    """The standing of a trial at the last rung it has reached; sorts the one to promote first to the front.

    Attributes:
        below: The rung, negated.
        value: The trial's value there, smaller is better.
        promoted: Whether it is among those that continue.
    """

    below: int
    value: float
    promoted: bool


class EqualProgressHalving(DecidingPruner):
    """Asynchronous successive halving (Li et al. 2020, arXiv:1810.05934) at equal progress.

    A trial that reaches a rung continues if its value is among the best 1/eta of all trials of its length that have
    reached it, running, pruned and complete ones alike; at least one continues, so the first to arrive does.

    Args:
        eta: One in so many continues.
        start: The first rung, as a fraction of the training; the others are eta times the one before.
        kind: The pruner's kind in a study file.

    Attributes:
        rungs: In per cent of training.
    """

    def __init__(self, eta: int, start: float, kind: str = "asha") -> None:
        super().__init__(kind)
        self._eta = eta
        self.rungs = tuple(takewhile(lambda rung: rung < 100, (percent(start * eta**k) for k in range(100))))

    def _continuing(self, rivals: int) -> int:
        """Return how many of a trial and its rivals continue."""
        return max(1, (rivals + 1) // self._eta)

    def _is_weak(self, value: float, rivals: Sequence[float]) -> bool:
        """Return whether ``value`` (smaller is better) is not among the best 1/eta of itself and its rivals."""
        return math.isnan(value) or sum(rival < value for rival in rivals) >= self._continuing(len(rivals))

    def decide(self, study: Study, trial: FrozenTrial) -> PruningDecision | None:
        """Decide on a trial whose last report is its first at or after a rung; if that passed several, on the worst."""
        step = trial.last_step
        if step is None:
            return None
        before = max((reported for reported in trial.intermediate_values if reported < step), default=0)
        reached = [rung for rung in self.rungs if before < rung <= step and rung > warmup_end(trial)]
        if not reached:
            return None
        rivals = same_length(trial, study.get_trials(deepcopy=False, states=COMPARED))
        found = [self._at(rung, trial, step, rivals, sign_of(study)) for rung in reached]
        return next((decision for decision in found if decision.pruned), found[-1])

    def _at(
        self, rung: int, trial: FrozenTrial, step: int, rivals: Iterable[FrozenTrial], sign: float
    ) -> PruningDecision:
        value, peers = trial.intermediate_values[step], _at_rung(rung, rivals)
        losses = sorted(_losses(peers, sign))
        continuing = self._continuing(len(losses))
        where = f"At the {rung} % rung" + (f" (evaluated at {step} %)" if step != rung else "")
        if not peers:
            reason = f"{where} its value was {value:.4g}; no other trial of the same length had got there yet."
            threshold = None
        else:
            threshold = sign * losses[continuing - 1]
            rank = 1 + sum(loss < sign * value for loss in losses)
            reason = (
                f"{where} its value of {value:.4g} ranked {rank} of {len(peers) + 1} trials of the same length. "
                f"The best {continuing} continue (one in {self._eta}), which took {threshold:.4g} or better."
            )
        return decision_of(
            self.kind,
            trial,
            value,
            peers,
            reason,
            sign=sign,
            pruned=self._is_weak(sign * value, losses),
            rung=rung,
            continuing=continuing,
            threshold=threshold,
        )

    def standing(self, study: Study, trial: FrozenTrial) -> RungStanding:
        """Return the present standing of a trial that is paused at a rung among all that have reached it."""
        rung = max((rung for rung in self.rungs if rung <= (trial.last_step or 0)), default=0)
        sign = sign_of(study)
        value = sign * (first_at_or_after(rung, trial.intermediate_values) or 0.0)
        rivals = same_length(trial, study.get_trials(deepcopy=False, states=COMPARED))
        return RungStanding(-rung, value, not self._is_weak(value, _losses(_at_rung(rung, rivals), sign)))


class EqualProgressHyperband(DecidingPruner):
    """Hyperband (Li et al. 2018, arXiv:1603.06560): a trial is compared within its bracket.

    A bracket is a halving whose first rung is at 1/eta, 1/eta**2, ... of the training, but not before a tenth of it;
    the last one prunes nothing. Trials fall into brackets by their seeds, in the proportions of the paper.

    Attributes:
        rungs: Those of all brackets, in per cent of training.
    """

    def __init__(self, eta: int) -> None:
        super().__init__("hyperband")
        deepest = int(math.log(10, eta))
        starts = [*(eta**-s for s in range(deepest, 0, -1)), 1.0]
        self._brackets = [EqualProgressHalving(eta, start, self.kind) for start in starts]
        self._shares = [math.ceil((deepest + 1) * eta**s / (s + 1)) for s in range(deepest, -1, -1)]
        self.rungs = tuple(sorted({rung for bracket in self._brackets for rung in bracket.rungs}))

    def decide(self, study: Study, trial: FrozenTrial) -> PruningDecision | None:
        """Decide within the trial's bracket."""
        bracket = self._of(trial)
        peers = [other for other in study.get_trials(deepcopy=False) if self._of(other) is bracket]
        return bracket.decide(StudyView(study, peers), trial)

    def _of(self, trial: FrozenTrial) -> EqualProgressHalving:
        return self.bracket(int(trial.user_attrs.get(SEED, trial.number)))

    def bracket(self, seed: int) -> EqualProgressHalving:
        """Return the bracket of the trials with this seed."""
        place = seed % sum(self._shares)
        return next(each for each, end in zip(self._brackets, accumulate(self._shares), strict=True) if place < end)


def _at_rung(rung: int, trials: Iterable[FrozenTrial]) -> list[tuple[int, float]]:
    """Return numbers and values of ``trials`` at a rung, without those that are not there, or in their warmup."""
    found = ((t.number, first_at_or_after(rung, t.intermediate_values)) for t in trials if rung > warmup_end(t))
    return [(number, value) for number, value in found if value is not None]


def _losses(peers: Iterable[tuple[int, float]], sign: float) -> list[float]:
    """Return values where smaller is better; NaN is the worst."""
    return [math.inf if math.isnan(value) else sign * value for _, value in peers]
