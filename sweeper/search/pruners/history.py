"""The pruner's decisions on a stored trial: its reports and those of its rivals, read in bulk."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import TypeAdapter, ValidationError

from sweeper.config.evaluation import direction
from sweeper.config.schedule import warmup
from sweeper.config.search import NoPruner, Pruner
from sweeper.config.trial import Outcome
from sweeper.search.curves import percent
from sweeper.search.pruners.explanation import PeerTrial, PruningDecision, Report, judgements
from sweeper.store import Database, MetricPoint, StudyRecord, TrialKind, TrialRecord

_PRUNER: TypeAdapter[Pruner] = TypeAdapter(Pruner)
_GRACES_S = (0.0, 2.0)
"""How much later than the decision a rival's report may be stored; the second is for trials evaluated together."""


@dataclass(frozen=True)
class Retraced:
    """Why a trial was pruned, or was not.

    Attributes:
        pruner: The study's, by kind.
        judgements: Its decisions on the trial, in order.
        agrees: Whether they give what happened. They do not where the stored times are too coarse, or where a person
            stopped the trial.
        never: Why the pruner had no say in the trial; None where it had.
    """

    pruner: str
    judgements: tuple[PruningDecision, ...]
    agrees: bool
    never: str | None = None


def pruner_of(study: StudyRecord) -> Pruner:
    """Return the pruner of a stored study; none where its configuration is of another version of sweeper."""
    try:
        return _PRUNER.validate_python(study.config.get("search", {}).get("pruner", "auto"))
    except (ValidationError, AttributeError):
        return NoPruner()


def retrace(
    database: Database, study: StudyRecord, trial: TrialRecord, trials: Iterable[TrialRecord] | None = None
) -> Retraced:
    """Work out again what the pruner decided on a trial, from what is stored.

    Args:
        database: Where they are stored.
        study: The trial's study.
        trial: The trial.
        trials: All trials of the study, where they were read before.

    Raises:
        StudyStateError: If the study does not exist.
    """
    pruner, evaluation = pruner_of(study), study.config.get("evaluation", {})
    metric = str(evaluation.get("metric"))
    never = _never(pruner, evaluation, trial)
    if never is not None:
        return Retraced(pruner.kind, (), agrees=trial.outcome is not Outcome.PRUNED, never=never)
    records = {each.number: each for each in (trials or database.trials.all(study.name))}
    own = _contestant(trial, database.metrics.get(study.name, number=trial.number, name=metric))
    read: dict[int, list[PeerTrial]] = {}

    def others(progress: int) -> list[PeerTrial]:
        if progress not in read:
            points = database.metrics.first_at_or_after(study.name, metric, progress)
            found = ((records.get(point.number), point) for point in points)
            read[progress] = [_contestant(record, [point]) for record, point in found if record is not None]
        return read[progress]

    ended_weak = trial.outcome in (Outcome.PRUNED, Outcome.PAUSED)
    for grace_s in _GRACES_S:
        found = judgements(pruner, direction(metric), own, others, grace_s=grace_s)
        agrees = [judgement.pruned for judgement in found] == [False] * (len(found) - 1) + [ended_weak] * bool(found)
        if agrees and (found or not ended_weak):
            return Retraced(pruner.kind, found, agrees=True)
    return Retraced(pruner.kind, found, agrees=False)


def _never(pruner: Pruner, evaluation: Mapping[str, object], trial: TrialRecord) -> str | None:
    if pruner.kind == "none":
        return "this study prunes nothing"
    if evaluation.get("objectives"):
        return "with several objectives nothing is pruned"
    if trial.kind is TrialKind.CONFIRMATION:
        return "a trial that repeats a good one with a fresh seed is never pruned"
    return None


def _contestant(trial: TrialRecord, points: Iterable[MetricPoint]) -> PeerTrial:
    """Return a stored trial as the pruner saw it."""
    parameters, total = trial.parameters, trial.total_steps
    steps = warmup(total, parameters.get("warmup_steps"), parameters.get("warmup_ratio"))
    reports: dict[int, Report] = {}
    for point in points:
        if total and math.isfinite(
            point.value
        ):  # the search keeps no other values, and of two at one per cent the first
            reports.setdefault(percent(point.step / total), Report(point.value, _reported_at(trial, point)))
    dropped = trial.outcome in (Outcome.FAILED, Outcome.INTERRUPTED)
    complete = trial.outcome is Outcome.COMPLETE
    return PeerTrial(
        number=trial.number,
        length=float(parameters.get("epochs", 1.0)),
        seed=trial.seed,
        warmup_end=100 * steps / total if total else 0.0,
        reports=reports,
        counts_until=trial.finished_at if dropped else None,
        complete_at=trial.finished_at if complete else None,
        value=trial.value,
    )


def _reported_at(trial: TrialRecord, point: MetricPoint) -> datetime:
    """Return when a value was reported; where that was not measured, as if the trial had gone at an even pace."""
    if point.seconds is not None:
        return trial.started_at + timedelta(seconds=point.seconds)
    if trial.finished_at is None or not trial.steps:
        return trial.started_at
    return trial.started_at + (trial.finished_at - trial.started_at) * (point.step / trial.steps)
