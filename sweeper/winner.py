"""After the search: the best trials against the base model on the test split, the report, and the registered winner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sweeper.config.trial import Outcome
from sweeper.data.splits import read_prepared
from sweeper.errors import StudyInterrupted, SweeperError
from sweeper.evaluation.comparison import Comparison, Difference, compare
from sweeper.evaluation.report import markdown_report
from sweeper.evaluation.scorer import Scorer
from sweeper.evaluation.scores import Scores
from sweeper.executors.base import StudyContext
from sweeper.paths import Home, write_atomically
from sweeper.registry import AdapterVersion, Registry
from sweeper.store import Evaluation, Example, Score
from sweeper.training.base_model import BaseModel

BASE = "base model"


@dataclass(frozen=True)
class Verdict:
    """What the test split says about a study.

    Attributes:
        trial: Number of the winning trial.
        candidates: Scores of the trials that were compared, by trial number, in validation order.
        base: Scores of the base model without adapter.
        comparison: Who wins, by how much.
        registered: The new adapter version; None where nothing beats the base.
        report: The Markdown report.
    """

    trial: int
    candidates: Mapping[int, Scores]
    base: Scores
    comparison: Comparison
    registered: AdapterVersion | None
    report: Path


def find_winner(context: StudyContext, base: BaseModel, home: Home, *, force: bool) -> Verdict:
    """Score the best trials and the base on the test split, decide, report and register.

    Args:
        context: The study, its search ended.
        base: The base model.
        home: Where adapters are registered.
        force: Register the winner even if it does not beat the base.

    Raises:
        SweeperError: If no trial was completed.
        StudyInterrupted: If the user asked to stop.
    """
    numbers = _candidates(context)
    base_scores, scores = _score_all(context, base, numbers)
    named = {_name(number): scores[number] for number in numbers}
    comparison = compare(named, base_scores, context.config.evaluation.metrics[0])
    winner = next(number for number in numbers if _name(number) == comparison.winner)
    _record(context, None, base_scores, {})
    for number in numbers:
        _record(context, number, scores[number], comparison.to_base[_name(number)])
    examples = context.config.evaluation.examples
    report = markdown_report(context.config.name, named, base_scores, comparison, examples)
    write_atomically(context.paths.report, report)
    registered = _register(context, home, winner, comparison, force=force)
    return Verdict(winner, scores, base_scores, comparison, registered, context.paths.report)


def _candidates(context: StudyContext) -> list[int]:
    """Return the trials to score, in validation order: of each of the best configurations the best of its trials."""
    wanted = context.config.evaluation.candidates
    if context.config.evaluation.objectives:
        numbers = [point.number for point in context.search.front()]
    else:
        sign = 1.0 if context.config.evaluation.direction == "minimize" else -1.0
        numbers = []
        for configuration in context.search.best(wanted):
            by_value = sorted(zip(configuration.values, configuration.numbers, strict=True), key=lambda p: sign * p[0])
            numbers.append(by_value[0][1])
    kept = [number for number in numbers if context.paths.trial(number).adapter.is_dir()][:wanted]
    if not kept:
        raise SweeperError(f"no trial of {context.config.name} was completed, so there is no winner{_reasons(context)}")
    return kept


def _reasons(context: StudyContext) -> str:
    """Say how the trials ended instead, with the commonest reason first."""
    trials = context.database.trials.all(context.config.name)
    reasons = [f"{trial.outcome}: {trial.reason}" for trial in trials if trial.outcome not in (None, Outcome.COMPLETE)]
    ordered = sorted(set(reasons), key=lambda reason: -reasons.count(reason))
    return "".join(f"\n  {reasons.count(reason)} x {reason}" for reason in ordered[:5])


def _score_all(context: StudyContext, base: BaseModel, numbers: list[int]) -> tuple[Scores, dict[int, Scores]]:
    rows = read_prepared(context.data.test)
    scorer = Scorer(base, rows, context.config.evaluation, context.config.technique, context.reward_sources)
    base_scores = scorer(base.model, _progress(context, BASE, 0, len(numbers) + 1))
    scores = {}
    for place, number in enumerate(numbers, start=1):
        with base.with_adapter(context.paths.trial(number).adapter) as model:
            progress = _progress(context, _name(number), place, len(numbers) + 1)
            scores[number] = scorer(model, progress)
    return base_scores, scores


def _progress(context: StudyContext, name: str, place: int, subjects: int) -> Callable[[int, int], None]:
    def on_progress(done: int, total: int) -> None:
        if context.stop.is_set:
            raise StudyInterrupted("stopped while scoring on the test split")
        context.listener.stage(f"scoring {name} on the test split", (place + done / max(1, total)) / subjects)

    on_progress(0, 1)
    return on_progress


def _name(number: int) -> str:
    return f"trial {number}"


def _record(context: StudyContext, number: int | None, scores: Scores, differences: Mapping[str, Difference]) -> None:
    """Store the scores of a trial, or of the base model where ``number`` is None, with every generated text."""
    rows = []
    for name, metric in scores.metrics.items():
        difference = differences.get(name)
        rows.append(
            Score(
                name,
                metric.value,
                metric.interval.low,
                metric.interval.high,
                difference.value if difference else None,
                difference.interval.low if difference else None,
                difference.interval.high if difference else None,
            )
        )
    examples = (
        Example(
            index,
            scores.prompts[index],
            reference,
            scores.predictions[index] if scores.predictions else "",
            {name: metric.examples[index] for name, metric in scores.metrics.items()},
        )
        for index, reference in enumerate(scores.references)
    )
    context.database.evaluations.add(context.config.name, Evaluation(number, "test", tuple(rows)), examples)


def _register(
    context: StudyContext, home: Home, winner: int, comparison: Comparison, *, force: bool
) -> AdapterVersion | None:
    """Register the winner under the study's name, unless the base is as good and nobody insists."""
    study = context.config.name
    if not (comparison.beats_base or force):
        context.database.events.add(
            study, "no_winner", "nothing beats the base model; nothing is registered", number=winner
        )
        return None
    registry = Registry(home, context.database)
    for version in registry.all(study):
        if (version.lineage.study, version.lineage.trial) == (study, winner):
            return version  # a resumed study that was registered before
    version = registry.register(study, context.paths.trial(winner).adapter, study=study, trial=winner)
    context.database.events.add(study, "registered", f"{version} from trial {winner}", number=winner)
    return version
