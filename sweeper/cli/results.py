"""Results of a study: scores, the Pareto front, the goal, and the winner."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from sweeper.cli.output import console, number, safe, span, table
from sweeper.config.evaluation import MEASURES, EvaluationConfig
from sweeper.config.study import StudyConfig
from sweeper.evaluation.goal import Contender, GoalResult, judge, meets, shown_count
from sweeper.search.pareto import front
from sweeper.store import Evaluation, ScoreRecord, TrialRecord

if TYPE_CHECKING:
    from sweeper.study.final_evaluation import StudyResult


def show_result(config: StudyConfig, result: StudyResult, say: Callable[[str], None]) -> None:
    """Print scores with intervals, the winner, and what to do next."""
    several = len(result.bases) > 1
    own = {name: f", on {base}" for name, base in result.comparison.base_of.items() if several}
    marks = {result.comparison.winner: " (winner)"}
    scored = ((subject + marks.get(subject, "") + own.get(subject, ""), score) for subject, score in _scores(result))
    console().print(score_table(scored))
    if result.goal is not None:
        say(f"[{'green' if result.goal.met else 'yellow'}]{safe(result.goal)}[/]")
    if result.registered is None:
        say("[yellow]nothing beats the base model[/] on the test split, so nothing was registered")
        say(f"  register trial {result.trial} anyway: sweeper resume {config.name} --force")
    else:
        name = safe(result.registered.name)
        say(f"[bold green]winner: trial {result.trial}[/], registered as {safe(result.registered)}")
        say(f"  why it won      sweeper best {name}")
        say(f"  use it          sweeper export {name} --format adapter --out my-adapter")
        say(f"  train it again  sweeper export {name} --format trl --out my-recipe")
    say(f"  report          {safe(result.report)}")


def result_json(config: StudyConfig, result: StudyResult) -> dict[str, Any]:
    """Return the result of a study as plain data."""
    registered = result.registered
    return {
        "study": config.name,
        "winner": result.trial,
        "base": result.comparison.base_of[result.comparison.winner],
        "beats_base": result.comparison.beats_base,
        "registered": None if registered is None else {"name": registered.name, "version": registered.version},
        "scores": [_score_json(subject, score) for subject, score in _scores(result)],
        "goal": None if result.goal is None else goal_json(result.goal),
        "report": str(result.report),
    }


def score_table(scored: Iterable[tuple[str, ScoreRecord]]) -> Table:
    """Return the scores of several subjects as a table."""
    rows = (
        (
            subject,
            score.metric,
            number(score.score, ".3f"),
            span(score.low, score.high),
            number(score.diff_to_base, "+.3f"),
            span(score.diff_low, score.diff_high, "+.3f"),
        )
        for subject, score in scored
    )
    return table(("model", "metric", "score>", "95 % interval", "difference to base", "95 % interval"), rows)


def _scores(result: StudyResult) -> list[tuple[str, ScoreRecord]]:
    from sweeper.evaluation.comparison import score_rows  # imports numpy, which stored scores do not need

    subjects = dict(result.bases) | {f"trial {number}": scores for number, scores in result.candidates.items()}
    to_base = result.comparison.to_base
    return [(name, row) for name, scores in subjects.items() for row in score_rows(scores, to_base.get(name, {}))]


def _score_json(subject: str, score: ScoreRecord) -> dict[str, Any]:
    found = {"model": subject, "metric": score.metric, "score": score.score, "low": score.low, "high": score.high}
    if score.diff_to_base is None:
        return found
    differences = score.diff_to_base, score.diff_low, score.diff_high
    return found | dict(zip(("difference", "difference_low", "difference_high"), differences, strict=True))


def pareto_front(
    config: EvaluationConfig, complete: Sequence[TrialRecord], evaluations: Sequence[Evaluation]
) -> list[dict[str, Any]]:
    """Return the trials that no other beats in every objective, best value first; none with one objective only.

    Each has ``trial``, ``model``, ``value`` (on the validation split), ``score`` (on the test split, or None),
    ``parameters`` (weights of base and adapter), ``latency_ms`` (per token, or None) and ``meets_goal`` (None without
    a goal; by the value if there is no score).
    """
    sign = 1.0 if config.direction == "minimize" else -1.0
    known = {trial.number: trial for trial in complete} if config.objectives else {}
    measured = {n: [getattr(trial, MEASURES[name]) for name in config.objectives] for n, trial in known.items()}
    losses = {n: (sign * (known[n].value or 0.0), *values) for n, values in measured.items() if None not in values}
    scores = _test_scores(config.metric, evaluations)
    return [_point(config, known[number], scores.get(number)) for number in front(losses)]


def _point(config: EvaluationConfig, trial: TrialRecord, score: float | None) -> dict[str, Any]:
    value = trial.value or 0.0
    met = None if config.goal is None else meets(config.metric, value if score is None else score, config.goal)
    size = {"parameters": trial.total_parameters, "latency_ms": trial.latency_ms}
    named = {"trial": trial.number, "model": trial.base_model, "value": value, "score": score}
    return {**named, **size, "meets_goal": met}


def goal_of(
    config: EvaluationConfig,
    winner: TrialRecord,
    points: Sequence[Mapping[str, Any]],
    evaluations: Sequence[Evaluation],
) -> GoalResult | None:
    """Judge the goal as the final comparison does; before it, by the validation split."""
    scores = _test_scores(config.metric, evaluations)
    scored = {evaluation.number for evaluation in evaluations if evaluation.number is not None}
    held = [p for p in points if not scored or p["trial"] in scored]
    contenders = []
    for p in held or [_point(config, winner, scores.get(winner.number))]:
        score = p["value"] if p["score"] is None else p["score"]
        contenders.append(Contender(p["trial"], p["model"] or "", score, p["parameters"], p["latency_ms"]))
    return judge(config, contenders, "test" if scores else "validation")


def front_table(config: EvaluationConfig, points: Sequence[Mapping[str, Any]]) -> Table:
    """Return the front as a table, smallest model first."""
    columns = ("trial>", "base model", f"{config.metric} on validation>", "on test>", "weights>", "ms per token>")
    rows = (
        (
            p["trial"],
            p["model"],
            number(p["value"]),
            number(p["score"]),
            "" if p["parameters"] is None else shown_count(p["parameters"]),
            number(p["latency_ms"], ".3g"),
            {None: "", True: "yes", False: "no"}[p["meets_goal"]],
        )
        for p in sorted(points, key=lambda p: (p["parameters"] or 0, p["latency_ms"] or 0.0))
    )
    return table((*columns, "meets goal"), rows, title="Pareto front: no other trial is better in every objective")


def goal_json(goal: GoalResult) -> dict[str, Any]:
    """Return the judgement of a goal as plain data."""
    found = {name: getattr(goal, name) for name in ("metric", "goal", "split", "met", "smallest", "nearest")}
    return found | {"misses_by": goal.miss, "text": str(goal)}


def _test_scores(metric: str, evaluations: Sequence[Evaluation]) -> dict[int, float]:
    return {
        evaluation.number: score.score
        for evaluation in evaluations
        for score in evaluation.scores
        if evaluation.number is not None and evaluation.split == "test" and score.metric == metric
    }
