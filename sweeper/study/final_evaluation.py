"""After the search: the best trials against their bases on the test split, the report, and the registered winner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from sweeper.config.trial import Outcome, TrialSpec
from sweeper.data.splits import read_prepared
from sweeper.errors import StudyInterrupted, SweeperError
from sweeper.evaluation.comparison import BASE, Comparison, Difference, compare, score_rows
from sweeper.evaluation.goal import Contender, GoalResult, judge, to_score
from sweeper.evaluation.report import markdown_report
from sweeper.evaluation.scorer import Scorer
from sweeper.evaluation.scores import Scores, example_rows, stored_scores
from sweeper.executors.context import StudyContext
from sweeper.executors.lifecycle.orders import MoreToTrain, process_orders
from sweeper.files.atomic import write_atomically
from sweeper.paths import Home
from sweeper.registry import AdapterVersion, Registry
from sweeper.retry import retried
from sweeper.store import SCORING, Evaluation
from sweeper.store.trial_files import require_whole
from sweeper.training.base_model import BaseModel

LoadBase = Callable[[TrialSpec], BaseModel]
"""Gives the base model that a trial stands on; the one before may be gone then."""


@dataclass(frozen=True)
class StudyResult:
    """What the test split says about a study.

    Attributes:
        trial: Number of the winning trial.
        candidates: Scores of the trials that were compared, by trial number, in validation order.
        bases: Scores of the base models without adapter, by name.
        comparison: Who wins, by how much.
        goal: What became of the study's goal; None where it has none.
        registered: The new adapter version; None where nothing beats the base.
        report: The Markdown report.
    """

    trial: int
    candidates: Mapping[int, Scores]
    bases: Mapping[str, Scores]
    comparison: Comparison
    goal: GoalResult | None
    registered: AdapterVersion | None
    report: Path

    @property
    def base(self) -> Scores:
        """Scores of the base model that the winner stands on."""
        return self.bases[self.comparison.base_of[self.comparison.winner]]


def find_winner(context: StudyContext, load: LoadBase, home: Home, *, force: bool) -> StudyResult:
    """Score the best trials and their bases on the test split, decide, report and register.

    Raises:
        SweeperError: If no trial was completed.
        ArtifactError: If a trial's adapter is not as the trial wrote it.
        StudyInterrupted: If the user asked to stop.
        MoreToTrain: If somebody ordered trials, or changed the budget.
        LeaseLost: If this worker was silent for so long that another one scores by now; nothing is stored then.
    """
    candidates = _candidates(context)
    for number in candidates:  # all of them, before the first base model is loaded
        require_whole(context.database, context.config.name, context.paths.trial(number), "adapter")
    specs = {number: _specification(context, number) for number in candidates}
    bases, scores = _score_all(context, load, specs)
    named = {_name(number): scores[number] for number in specs}
    base_of = {_name(number): _base_name(context, spec) for number, spec in specs.items()}
    config = context.config.evaluation
    goal = _goal(context, scores) if config.objectives else None
    decided = None if goal is None else _name(goal.nearest if goal.smallest is None else goal.smallest)
    comparison = compare(named, bases, config.metrics[0], base_of=base_of, winner=decided)
    winner = next(number for number in specs if _name(number) == comparison.winner)
    if goal is None:  # with one objective the winner is held against the goal, and only it
        goal = _goal(context, {winner: scores[winner]})
    _require_turn(context)
    _record_all(context, specs, bases, scores, comparison)
    report = markdown_report(context.config.name, named, bases, comparison, config.examples, goal)
    write_atomically(context.paths.report, report)
    if goal is not None:
        context.database.events.add(context.config.name, "goal", str(goal), number=winner)
    registered = _register(context, home, winner, comparison, force=force)
    return StudyResult(winner, scores, bases, comparison, goal, registered, context.paths.report)


def _require_turn(context: StudyContext) -> None:
    context.database.leases.require(context.config.name, SCORING, context.membership.token)


def _candidates(context: StudyContext) -> list[int]:
    """Return the trials to score, in validation order: of each of the best configurations the best of its trials.

    What people ordered is scored as well, wherever it stands: they want to know.
    """
    config = context.config.evaluation
    if config.objectives:
        numbers = [point.number for point in context.search.front()]
    else:
        numbers = [found.best_number(config.direction) for found in context.search.best(config.candidates)]
    recorded = {artifact.number for artifact in context.database.artifacts.all(context.config.name)}

    def has_adapter(number: int) -> bool:
        return number in recorded or context.paths.trial(number).adapter.is_dir()

    kept = [number for number in numbers if has_adapter(number)]
    if not kept:
        raise SweeperError(f"no trial of {context.config.name} was completed, so there is no winner{_reasons(context)}")
    if config.goal is not None and config.objectives:
        chosen = to_score(config, [_contender(context, number) for number in kept])
        return [number for number in kept if number in chosen]
    chosen = kept[: config.candidates]
    if config.objectives:
        return chosen
    asked = [number for number in context.search.ordered_complete() if has_adapter(number)]
    return list(dict.fromkeys([*chosen, *asked]))


def _goal(context: StudyContext, scores: Mapping[int, Scores]) -> GoalResult | None:
    """Hold trials against the goal, if there is one: by the test split where it was measured, else by validation."""
    config = context.config.evaluation
    tested = config.metric in config.metrics
    contenders = [
        _contender(context, number, found.metrics[config.metric].value if tested else None)
        for number, found in scores.items()
    ]
    return judge(config, contenders, "test" if tested else "validation")


def _contender(context: StudyContext, number: int, score: float | None = None) -> Contender:
    """Return a trial as the goal sees it, with its validation score unless another is given."""
    trial = context.database.trials.get(context.config.name, number)
    value = trial.value if score is None else score
    assert value is not None  # only complete trials become candidates
    return Contender(number, trial.base_model or "", value, trial.total_parameters, trial.latency_ms)


def _reasons(context: StudyContext) -> str:
    """Say how the trials ended instead, with the commonest reason first."""
    trials = context.database.trials.all(context.config.name)
    reasons = [f"{trial.outcome}: {trial.reason}" for trial in trials if trial.outcome not in (None, Outcome.COMPLETE)]
    ordered = sorted(set(reasons), key=lambda reason: -reasons.count(reason))
    return "".join(f"\n  {reasons.count(reason)} x {reason}" for reason in ordered[:5])


def _specification(context: StudyContext, number: int) -> TrialSpec:
    return TrialSpec.model_validate_json(context.paths.trial(number).spec.read_text(encoding="utf-8"))


def _score_all(
    context: StudyContext, load: LoadBase, specs: Mapping[int, TrialSpec]
) -> tuple[dict[str, Scores], dict[int, Scores]]:
    """Score every candidate and every base that one stands on, base by base, so that each is loaded once.

    What was scored and stored before, by a process that died afterwards or by another worker, is not scored again.
    """
    rows, config, known = read_prepared(context.data.test), context.config, _scored_before(context, specs)
    names = {number: _base_name(context, spec) for number, spec in specs.items()}
    subjects, place = len(specs) + len(set(names.values())), count()
    bases: dict[str, Scores] = {}
    scores: dict[int, Scores] = {}
    for name in dict.fromkeys(names.values()):
        numbers = [number for number in specs if names[number] == name]
        found = {subject: known[subject] for subject in (name, *numbers) if subject in known}
        bases |= {name: found[name]} if name in found else {}
        scores |= {number: found[number] for number in numbers if number in found}
        if len(found) > len(numbers):
            continue
        base = load(specs[numbers[0]])
        scorer = Scorer(base, rows, config.evaluation, config.technique, context.reward_sources)
        if name not in found:
            bases[name] = scorer(base.model, _progress(context, name, next(place), subjects))
            _note_cut(context, name, bases[name])
        for number in (number for number in numbers if number not in found):
            with base.with_adapter(context.paths.trial(number).adapter) as model:
                scores[number] = scorer(model, _progress(context, _name(number), next(place), subjects))
            _note_cut(context, _name(number), scores[number])
    return bases, {number: scores[number] for number in specs}


def _note_cut(context: StudyContext, name: str, scores: Scores) -> None:
    """Say how many answers the model had not ended."""
    if scores.cut:
        context.listener.note(
            f"{name}: {scores.cut:,} of {len(scores.predictions):,} answers were cut, because the model had not ended "
            "them when the most tokens were generated (evaluation.max_new_tokens)"
        )


def _scored_before(context: StudyContext, specs: Mapping[int, TrialSpec]) -> dict[str | int, Scores]:
    """Return the scores on the test split that are stored: of base models by name, of trials by number."""
    database, study, found = context.database, context.config.name, dict[str | int, Scores]()
    labels = {context.config.base_label(s.model.name, s.adapter): _base_name(context, s) for s in specs.values()}
    for evaluation in database.evaluations.all(study):
        number, split, base = evaluation.number, evaluation.split, evaluation.base
        subject = labels.get(base) if number is None else number
        if split == "test" and subject is not None:
            scores = stored_scores(evaluation.scores, database.evaluations.examples(study, number, split, base))
            if scores is not None and list(scores.metrics) == list(context.config.evaluation.metrics):
                found[subject] = scores
    return found


def _progress(context: StudyContext, name: str, place: int, subjects: int) -> Callable[[int, int], None]:
    def on_progress(done: int, total: int) -> None:
        process_orders(context)
        if context.pending_orders.changed:
            raise MoreToTrain
        if context.stop.is_set:
            raise StudyInterrupted("stopped while scoring on the test split")
        context.listener.stage(f"scoring {name} on the test split", (place + done / max(1, total)) / subjects)

    on_progress(0, 1)
    return on_progress


def _name(number: int) -> str:
    return f"trial {number}"


def _base_name(context: StudyContext, spec: TrialSpec) -> str:
    """Return what the base model of a trial is called beside the study's others."""
    return f"{BASE} {context.config.base_label(spec.model.name, spec.adapter)}".rstrip()


def _record_all(
    context: StudyContext,
    specs: Mapping[int, TrialSpec],
    bases: Mapping[str, Scores],
    scores: Mapping[int, Scores],
    comparison: Comparison,
) -> None:
    """Store the scores of the base models, then those of the trials."""
    labels = {number: context.config.base_label(spec.model.name, spec.adapter) for number, spec in specs.items()}
    for label, spec in {labels[number]: spec for number, spec in specs.items()}.items():
        _record(context, None, label, bases[_base_name(context, spec)], {})
    for number, label in labels.items():
        _record(context, number, label, scores[number], comparison.to_base[_name(number)])


def _record(
    context: StudyContext, number: int | None, base: str, scores: Scores, differences: Mapping[str, Difference]
) -> None:
    """Store the scores of a trial, or of a base model where ``number`` is None, with every generated text."""
    evaluation = Evaluation(number, "test", score_rows(scores, differences), base)
    context.database.evaluations.add(context.config.name, evaluation, example_rows(scores))


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
    return _version(context, Registry(home, context.database), winner)


@retried
def _version(context: StudyContext, registry: Registry, winner: int) -> AdapterVersion:
    """Register the winner, unless it was: by a process that died then, or as the connection to the server was lost."""
    study = context.config.name
    for version in registry.all(study):
        if (version.lineage.study, version.lineage.trial) == (study, winner):
            return version
    _require_turn(context)
    version = registry.register(study, context.paths.trial(winner).adapter, study=study, trial=winner)
    context.database.events.add(study, "registered", f"{version} from trial {winner}", number=winner)
    return version
