"""Scoring of registered versions for the gate: on the test examples of another version's study."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from sweeper.config.trial import TrialSpec
from sweeper.data.splits import read_prepared
from sweeper.errors import DataError, RegistryError
from sweeper.evaluation.comparison import Difference, score_rows, stored_difference
from sweeper.evaluation.scorer import Scorer
from sweeper.evaluation.scores import Scores, example_rows
from sweeper.models.cache import OnStage
from sweeper.paths import Home
from sweeper.registry import AdapterVersion, Registry
from sweeper.registry.gate import TEST, base_examples, judge, own_examples, split_of
from sweeper.registry.version import trial_spec
from sweeper.store import Database, Evaluation
from sweeper.training.base_model import load_base
from sweeper.training.device import resolve_device


def score_missing(
    home: Home, database: Database, candidate: AdapterVersion, other: AdapterVersion | None, on_progress: OnStage
) -> tuple[str, ...]:
    """Compute the scores that the gate lacks to compare a version with another, or with its base model.

    Everything is scored on the test examples of the candidate's study, with its metrics and settings. Scores of another
    version are stored with that version's own study and trial, under a separate split.

    Returns:
        What was scored, in words.

    Raises:
        RegistryError: If a version's files are not as registered, or the two cannot be scored alike.
        DataError: If the test examples are gone.
    """
    if not judge(database, candidate, other).unscored:
        return ()
    asked = trial_spec(home, candidate)
    scored = []
    if not own_examples(database, candidate):
        scores = _scores(home, database, asked, candidate, on_progress)
        _store(database, candidate, TEST, scores, candidate)
        scored.append(str(candidate))
    if other is None:
        if not base_examples(database, candidate):
            scores = _scores(home, database, asked, None, on_progress)
            label = _base_label(database, candidate)
            evaluation = Evaluation(None, TEST, score_rows(scores, {}), label)
            database.evaluations.add(candidate.lineage.study, evaluation, example_rows(scores))
            scored.append(f"the base model of {candidate}")
    elif judge(database, candidate, other).unscored:
        scores = _scores(home, database, asked, other, on_progress)
        own = other.lineage.study == candidate.lineage.study
        _store(database, other, TEST if own else split_of(candidate.lineage.study), scores, candidate)
        scored.append(str(other))
    return tuple(scored)


def _scores(
    home: Home, database: Database, asked: TrialSpec, version: AdapterVersion | None, on_progress: OnStage
) -> Scores:
    """Score a version, or the base model if it is None, by the settings of the candidate's study."""
    subject = "the base model" if version is None else str(version)
    spec = asked if version is None else trial_spec(home, version)
    if spec.technique.head != asked.technique.head:
        raise RegistryError(f"{subject} is not a model of the same kind: one of the two is a reward model")
    rows = read_prepared(home.study(asked.study).data / "test.jsonl")
    if version is not None:
        Registry(home, database).verify(version.name, version.version)
    on_progress(f"loading {spec.model.name}", None)
    base = load_base(spec.model_folder, spec.model, spec.adapter, resolve_device("auto"), spec.technique.head)
    scorer = Scorer(base, rows, asked.evaluation, asked.technique, asked.reward_sources)

    def show(done: int, total: int) -> None:
        on_progress(f"scoring {subject} on the test split of {asked.study}", done / max(1, total))

    if version is None:
        return scorer(base.model, show)
    with base.with_adapter(version.folder) as model:
        return scorer(model, show)


def _store(database: Database, version: AdapterVersion, split: str, scores: Scores, candidate: AdapterVersion) -> None:
    """Store a version's scores, with its differences to the base model if that was scored there too."""
    lineage = version.lineage
    same_base = lineage.base_model_fingerprint == candidate.lineage.base_model_fingerprint
    to_base = _to_base(database, candidate, scores) if same_base else {}
    evaluation = Evaluation(lineage.trial, split, score_rows(scores, to_base), _base_label(database, version))
    database.evaluations.add(lineage.study, evaluation, example_rows(scores))


def _to_base(database: Database, candidate: AdapterVersion, scores: Scores) -> Mapping[str, Difference]:
    base, found = base_examples(database, candidate), tuple(example_rows(scores))
    differences = {}
    for metric in scores.metrics:
        with suppress(DataError):  # the base was not scored with it, or on other examples
            differences[metric] = stored_difference(found, base, metric)
    return differences


def _base_label(database: Database, version: AdapterVersion) -> str:
    """Return the label that tells the base model of a version from others of its study; empty if it has one only."""
    found = database.evaluations.all(version.lineage.study)
    return next((each.base for each in found if each.number == version.lineage.trial), "")
