"""Trials that did not finish, as samplers see them that learn from complete trials only (GP, CMA-ES).

Left out, a pruned or infeasible configuration is forgotten and its region tried again. So a pruned trial counts with
the value it had when it was pruned plus what complete trials gained from there on, a diverged one with the worst
value there is, and one that did not fit in memory as a violated constraint.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeper.search.attributes import OUTCOME, PAUSED
from sweeper.search.curves import first_at_or_after

MEMORY = "memory"
"""The constraint that an infeasible trial violates."""


def with_pruned_judged(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> list[FrozenTrial]:
    """Return ``trials`` with every pruned or paused one made complete, once one truly is; the others as they are."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if not complete:
        return list(trials)  # nothing to compare with, so the sampler continues as at the start
    constrained = any(is_infeasible(trial) for trial in trials)
    judged = []
    for trial in trials:
        if trial.state == TrialState.PRUNED or trial.user_attrs.get(PAUSED):
            trial = _as_complete(trial, _judge(trial, complete, directions), constrained)
        elif trial.state == TrialState.COMPLETE and constrained:
            trial = _as_complete(trial, trial.values, constrained)
        judged.append(trial)
    return judged


def is_infeasible(trial: FrozenTrial) -> bool:
    """Return whether the trial did not fit in memory."""
    return any(value > 0 for value in trial.constraints.values())


def _judge(trial: FrozenTrial, complete: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> list[float]:
    """Return the imputed values of a trial without a final one, one per objective."""
    columns = [[other.values[i] for other in complete] for i in range(len(directions))]
    if is_infeasible(trial):
        return [median(column) for column in columns]
    worst = [
        max(column) if direction == StudyDirection.MINIMIZE else min(column)
        for column, direction in zip(columns, directions, strict=True)
    ]
    step = trial.last_step
    if trial.user_attrs.get(OUTCOME) == "diverged" or step is None or len(directions) > 1:
        return worst
    value = trial.intermediate_values[step]
    return [value + _gain_after(step, complete)] if math.isfinite(value) else worst


def _gain_after(step: int, complete: Sequence[FrozenTrial]) -> float:
    """Return the median change of complete trials' values from ``step`` (per cent of training) to their end."""
    changes = [
        trial.values[0] - then
        for trial in complete
        if (then := first_at_or_after(step, trial.intermediate_values)) is not None and math.isfinite(then)
    ]
    return median(changes) if changes else 0.0


def _as_complete(trial: FrozenTrial, values: Sequence[float], constrained: bool) -> FrozenTrial:
    """Return a complete copy; all complete trials of a study need the same constraints, or none."""
    system_attrs = {name: value for name, value in trial.system_attrs.items() if not name.startswith("constraints")}
    copied = create_trial(
        state=TrialState.COMPLETE,
        values=list(values),
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs,
        system_attrs=system_attrs,
        constraints={MEMORY: 1.0 if is_infeasible(trial) else -1.0} if constrained else None,
    )
    copied.number = trial.number
    return copied
