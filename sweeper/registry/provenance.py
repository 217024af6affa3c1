"""The source of an export: everything that led to a registered adapter."""

from __future__ import annotations

from sweeper.config.trial import TrialSpec
from sweeper.errors import ExportError
from sweeper.export.source import BaseModelSource, ExportSource, Score, SplitSource
from sweeper.files.checksums import sha256_of
from sweeper.models.catalogue import lookup
from sweeper.paths import Home
from sweeper.registry import AdapterVersion
from sweeper.registry.version import trial_spec
from sweeper.store import Database, StudyRecord, TrialRecord, stored_config


def export_source(home: Home, database: Database, version: AdapterVersion) -> ExportSource:
    """Return what an export of ``version`` is made from.

    Raises:
        ExportError: If the prepared data are gone.
        RegistryError: If the trial's specification or the base model is gone, or has changed.
        ModelError: If the base model is no longer usable.
        StudyStateError: If the database no longer has the study or the trial.
    """
    study = database.studies.get(version.lineage.study)
    trial = database.trials.get(version.lineage.study, version.lineage.trial)
    spec = trial_spec(home, version)
    return ExportSource(
        study=study.name,
        adapter_name=version.name,
        version=version.version,
        adapter_folder=version.folder,
        base=_base(version, spec),
        spec=spec,
        dtype=trial.dtype or "float32",
        attention=trial.attention or "sdpa",
        micro_batch=trial.micro_batch or spec.hyperparameters.batch_size,
        steps=trial.total_steps,
        best_step=trial.best_step,
        train=_split(study, "train", home),
        validation=_split(study, "validation", home),
        test=_split(study, "test", home),
        scores=_scores(study, trial, database),
        search=_search(study, database),
        versions=version.lineage.packages,
        sweeper_version=version.lineage.sweeper_version,
    )


def _base(version: AdapterVersion, spec: TrialSpec) -> BaseModelSource:
    entry = lookup(spec.model.name)
    hub_name = (
        spec.model.name if spec.model.name.count("/") == 1 and not spec.model.name.startswith((".", "/")) else None
    )
    return BaseModelSource(
        folder=spec.model_folder,
        name=version.lineage.base_model,
        fingerprint=version.lineage.base_model_fingerprint,
        hub_id=entry.hub if entry else hub_name,
        revision=spec.model.revision,
        licence=entry.license if entry else None,
    )


def _split(study: StudyRecord, name: str, home: Home) -> SplitSource:
    path = home.study(study.name).data / f"{name}.jsonl"
    if not path.is_file():
        raise ExportError(f"{path} is gone, so the adapter cannot be exported; restore it from a backup")
    with path.open(encoding="utf-8") as file:
        rows = sum(1 for _ in file)
    return SplitSource(path, sha256_of(path), rows)


def _scores(study: StudyRecord, trial: TrialRecord, database: Database) -> tuple[Score, ...]:
    """Return the trial's final scores beside the base's; empty if it was never scored."""
    evaluations = database.evaluations.all(study.name)
    base = {(e.base, e.split, s.metric): s.score for e in evaluations if e.number is None for s in e.scores}
    scored = {(base_model, split) for base_model, split, _ in base}  # a version may be scored on another's test too
    return tuple(
        Score(
            metric=score.metric,
            split=evaluation.split,
            score=score.score,
            low=score.low,
            high=score.high,
            base_score=base[evaluation.base, evaluation.split, score.metric],
            difference_low=score.diff_low,
            difference_high=score.diff_high,
        )
        for evaluation in evaluations
        if evaluation.number == trial.number and (evaluation.base, evaluation.split) in scored
        for score in evaluation.scores
        if score.low is not None
        and score.high is not None
        and score.diff_low is not None
        and score.diff_high is not None
    )


def _search(study: StudyRecord, database: Database) -> str:
    """Return how the adapter was found, in words."""
    search = stored_config(study).search
    trials = sum(trial.outcome is None or not trial.outcome.is_open for trial in database.trials.all(study.name))
    return f"best of {trials} trials (sampler {search.sampler.kind}, pruner {search.pruner.kind})"
