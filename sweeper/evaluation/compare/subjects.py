"""Subjects of a comparison: trials, registered versions and base models, each with a one-word name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweeper.errors import RegistryError, StudyStateError, UserError
from sweeper.store import (
    AdapterRecord,
    Database,
    Evaluation,
    Example,
    ScoreRecord,
    StudyRecord,
    TrialRecord,
    did_you_mean,
)

TEST = "test"
FEWEST, MOST = 2, 8
_BASE = "base"


@dataclass(frozen=True)
class ComparedSubject:
    """One of the systems compared.

    Attributes:
        key: Its name: ``STUDY:N``, ``NAME@V``, or ``STUDY:base`` (with several base models ``STUDY:base:LABEL``).
        study: The study that it comes from.
        trial: The trial; None for a base model.
        version: The registered version, if it was named as one.
        base: Label of its base model among the study's; empty if there is only one.
        scores: Its scores on the test split by metric.
        examples: Its examples of that split.
    """

    key: str
    study: StudyRecord
    trial: TrialRecord | None
    version: AdapterRecord | None
    base: str
    scores: Mapping[str, ScoreRecord]
    examples: tuple[Example, ...]

    @property
    def base_model(self) -> str:
        """The name of its base model."""
        own = self.trial.base_model if self.trial is not None else None
        return own or self.base or self.study.base_model

    @property
    def fingerprint(self) -> str:
        """Hash of its base model's weights and config."""
        own = self.trial.base_model_fingerprint if self.trial is not None else None
        return own or self.study.base_model_fingerprint

    @property
    def words(self) -> str:
        """A description."""
        if self.trial is None:
            return f"base model {self.base} of {self.study.name}".replace("  ", " ")
        of_trial = f"trial {self.trial.number} of {self.study.name}"
        return of_trial if self.version is None else f"{self.version.name} v{self.version.version} ({of_trial})"


def find_subjects(database: Database, keys: Sequence[str]) -> tuple[ComparedSubject, ...]:
    """Return the subjects with these names, in their order.

    Raises:
        UserError: If there are fewer than two, more than eight, duplicates, or an invalid name.
    """
    if len(set(keys)) != len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UserError(f"{twice} is named twice; a comparison needs different subjects")
    if not FEWEST <= len(keys) <= MOST:
        raise UserError(f"a comparison takes {FEWEST} to {MOST} subjects; found {len(keys)}")
    read: dict[str, tuple[Evaluation, ...]] = {}
    return tuple(_find(database, key, read) for key in keys)


def _find(database: Database, key: str, read: dict[str, tuple[Evaluation, ...]]) -> ComparedSubject:
    name, colon, number = key.rpartition(":")
    if colon and number.isascii() and number.isdigit():
        return _of_trial(database, key, name, int(number[:18]), None, read)
    study, is_base, label = key.partition(f":{_BASE}")
    if is_base and (not label or label.startswith(":")):
        return _of_base(database, key, study, label[1:], read)
    adapter, at, version = key.rpartition("@")
    version = version.removeprefix("v")
    if at and version.isascii() and version.isdigit():
        record = _version(database, adapter, int(version[:18]))
        return _of_trial(database, key, record.study, record.number, record, read)
    raise UserError(
        f"{key[:120]!r} is not a valid name: a trial is STUDY:NUMBER, a registered version NAME@VERSION, and a base "
        "model STUDY:base"
    )


def _of_trial(
    database: Database,
    key: str,
    study: str,
    number: int,
    version: AdapterRecord | None,
    read: dict[str, tuple[Evaluation, ...]],
) -> ComparedSubject:
    record, trial = database.studies.get(study), database.trials.get(study, number)
    found = next((e for e in _evaluations(database, study, read) if (e.number, e.split) == (number, TEST)), None)
    scores = {} if found is None else {score.metric: score for score in found.scores}
    examples = database.evaluations.examples(study, number, TEST)
    return ComparedSubject(key, record, trial, version, found.base if found else "", scores, examples)


def _of_base(
    database: Database, key: str, study: str, label: str, read: dict[str, tuple[Evaluation, ...]]
) -> ComparedSubject:
    record = database.studies.get(study)
    bases = {e.base: e for e in _evaluations(database, study, read) if e.number is None and e.split == TEST}
    if not label and len(bases) == 1:
        label = next(iter(bases))
    if bases and label not in bases:
        named = ", ".join(f"{study}:{_BASE}:{base}" for base in bases)
        raise StudyStateError(f"study {study!r} has several base models; name one: {named}")
    scores = {score.metric: score for score in bases[label].scores} if bases else {}
    examples = database.evaluations.examples(study, None, TEST, label) if bases else ()
    return ComparedSubject(key, record, None, None, label, scores, examples)


def _version(database: Database, name: str, version: int) -> AdapterRecord:
    versions = database.adapters.all(name)
    found = next((record for record in versions if record.version == version), None)
    if found is None:
        known = ", ".join(str(record.version) for record in versions)
        names = {record.name for record in database.adapters.all()}
        hint = f"; it has {known}" if known else did_you_mean(name, names)
        raise RegistryError(f"no version {version} of an adapter {name!r} is registered{hint}")
    return found


def _evaluations(database: Database, study: str, read: dict[str, tuple[Evaluation, ...]]) -> tuple[Evaluation, ...]:
    if study not in read:
        read[study] = database.evaluations.all(study)
    return read[study]
