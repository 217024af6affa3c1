"""How the end of a study is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sweeper.cli.output import console, safe, table
from sweeper.cli.pareto import goal_json
from sweeper.config.study import StudyConfig
from sweeper.study.final_evaluation import StudyResult


def show_verdict(config: StudyConfig, verdict: StudyResult, say: Callable[[str], None]) -> None:
    """Print scores with intervals, the winner, and what to do next."""
    console().print(
        table(("model", "metric", "score>", "95 % interval", "difference to base", "95 % interval"), _rows(verdict))
    )
    if verdict.goal is not None:
        say(f"[{'green' if verdict.goal.met else 'yellow'}]{safe(verdict.goal)}[/]")
    if verdict.registered is None:
        say("[yellow]nothing beats the base model[/] on the test split, so nothing was registered")
        say(f"  register trial {verdict.trial} all the same: sweeper resume {config.name} --force")
    else:
        name = safe(verdict.registered.name)
        say(f"[bold green]winner: trial {verdict.trial}[/], registered as {safe(verdict.registered)}")
        say(f"  why it won      sweeper best {name}")
        say(f"  use it          sweeper export {name} --format adapter --out my-adapter")
        say(f"  train it again  sweeper export {name} --format trl --out my-recipe")
    say(f"  report          {safe(verdict.report)}")


def verdict_json(config: StudyConfig, verdict: StudyResult) -> dict[str, Any]:
    """Return the verdict as plain data."""
    registered = verdict.registered
    return {
        "study": config.name,
        "winner": verdict.trial,
        "base": verdict.comparison.base_of[verdict.comparison.winner],
        "beats_base": verdict.comparison.beats_base,
        "registered": None if registered is None else {"name": registered.name, "version": registered.version},
        "scores": [
            {"model": model, "metric": metric, "score": score, "low": low, "high": high, **difference}
            for model, metric, score, low, high, difference in _scores(verdict)
        ],
        "goal": None if verdict.goal is None else goal_json(verdict.goal),
        "report": str(verdict.report),
    }


def _scores(verdict: StudyResult) -> list[tuple[str, str, float, float, float, dict[str, float]]]:
    subjects = dict(verdict.bases) | {f"trial {number}": scores for number, scores in verdict.candidates.items()}
    found = []
    for subject, scores in subjects.items():
        for name, metric in scores.metrics.items():
            difference = verdict.comparison.to_base.get(subject, {}).get(name)
            more = (
                {}
                if difference is None
                else {
                    "difference": difference.value,
                    "difference_low": difference.interval.low,
                    "difference_high": difference.interval.high,
                }
            )
            found.append((subject, name, metric.value, metric.interval.low, metric.interval.high, more))
    return found


def _rows(verdict: StudyResult) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for subject, name, value, low, high, difference in _scores(verdict):
        own = verdict.comparison.base_of.get(subject) if len(verdict.bases) > 1 else None
        mark = " (winner)" * (subject == verdict.comparison.winner) + (f", on {own}" if own else "")
        change = f"{difference['difference']:+.3f}" if difference else ""
        interval = f"{difference['difference_low']:+.3f} to {difference['difference_high']:+.3f}" if difference else ""
        rows.append((subject + mark, name, f"{value:.3f}", f"{low:.3f} to {high:.3f}", change, interval))
    return rows
