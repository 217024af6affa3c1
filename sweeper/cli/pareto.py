"""What ``sweeper best`` shows of a study with several objectives or a goal: the front, and what meets the goal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from sweeper.cli.output import table
from sweeper.config.evaluation import MEASURES, EvaluationConfig
from sweeper.evaluation.goal import Contender, GoalResult, judge, meets, shown_count
from sweeper.search.pareto import front
from sweeper.store import Evaluation, TrialRecord


@dataclass(frozen=True)
class FrontPoint:
    """A trial that no other is better than in every objective.

    Attributes:
        trial: Its number.
        model: Its base model.
        value: The deciding metric on the validation split.
        score: The same on the test split; None where it was not scored there.
        parameters: Weights of base and adapter together.
        latency_ms: Milliseconds per generated token; None where it was not measured.
        meets_goal: Whether its score meets the goal (the validation value where there is none); None without a goal.
    """

    trial: int
    model: str | None
    value: float
    score: float | None
    parameters: int | None
    latency_ms: float | None
    meets_goal: bool | None


def pareto_front(
    config: EvaluationConfig, complete: Sequence[TrialRecord], evaluations: Sequence[Evaluation]
) -> list[FrontPoint]:
    """Return the front of a study, best score first; empty where the study has one objective."""
    sign = 1.0 if config.direction == "minimize" else -1.0
    measured = {t.number: [getattr(t, MEASURES[name]) for name in config.objectives] for t in complete}
    losses = {
        trial.number: (sign * (trial.value or 0.0), *measured[trial.number])
        for trial in complete
        if config.objectives and None not in measured[trial.number]
    }
    known, scores = {trial.number: trial for trial in complete}, _test_scores(config.metric, evaluations)
    return [_point(config, known[number], scores.get(number)) for number in front(losses)]


def _point(config: EvaluationConfig, trial: TrialRecord, score: float | None) -> FrontPoint:
    value = trial.value or 0.0
    met = None if config.goal is None else meets(config.metric, value if score is None else score, config.goal)
    return FrontPoint(trial.number, trial.base_model, value, score, trial.total_parameters, trial.latency_ms, met)


def goal_of(
    config: EvaluationConfig, winner: TrialRecord, points: Sequence[FrontPoint], evaluations: Sequence[Evaluation]
) -> GoalResult | None:
    """Return what became of the goal, as the final comparison judged it; before it, by the validation split."""
    scores = _test_scores(config.metric, evaluations)
    scored = {evaluation.number for evaluation in evaluations if evaluation.number is not None}
    contenders = [
        Contender(p.trial, p.model or "", p.value if p.score is None else p.score, p.parameters, p.latency_ms)
        for p in points
        if not scored or p.trial in scored
    ]
    if not contenders:
        score = scores.get(winner.number, winner.value or 0.0)
        size = winner.total_parameters, winner.latency_ms
        contenders = [Contender(winner.number, winner.base_model or "", score, *size)]
    return judge(config, contenders, "test" if scores else "validation")


def front_table(config: EvaluationConfig, points: Sequence[FrontPoint]) -> Table:
    """Return the front as a table, the smallest first."""
    metric = config.metric
    columns = (
        "trial>",
        "base model",
        f"{metric} on validation>",
        "on test>",
        "weights>",
        "ms per token>",
        "meets goal",
    )
    rows = (
        (
            point.trial,
            point.model,
            f"{point.value:.4g}",
            "" if point.score is None else f"{point.score:.4g}",
            "" if point.parameters is None else shown_count(point.parameters),
            "" if point.latency_ms is None else f"{point.latency_ms:.3g}",
            {None: "", True: "yes", False: "no"}[point.meets_goal],
        )
        for point in sorted(points, key=lambda point: (point.parameters or 0, point.latency_ms or 0.0))
    )
    return table(columns, rows, title="front: no other trial is better in every objective")


def goal_json(goal: GoalResult) -> dict[str, Any]:
    """Return what became of a goal as plain data."""
    return {
        "metric": goal.metric,
        "goal": goal.goal,
        "split": goal.split,
        "met": goal.met,
        "smallest": goal.smallest,
        "nearest": goal.nearest,
        "misses_by": goal.miss,
        "text": str(goal),
    }


def _test_scores(metric: str, evaluations: Sequence[Evaluation]) -> Mapping[int, float]:
    return {
        evaluation.number: score.score
        for evaluation in evaluations
        for score in evaluation.scores
        if evaluation.number is not None and evaluation.split == "test" and score.metric == metric
    }
