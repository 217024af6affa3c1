"""Changes between two versions of an adapter."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sweeper.registry.gate import differences
from sweeper.registry.version import AdapterVersion
from sweeper.store import Database


@dataclass(frozen=True)
class Change:
    """One difference.

    Attributes:
        part: Hyperparameters, base model, data, packages, seeds or origin.
        old: The value in the first version; None if it has none.
        new: The value in the second.
    """

    part: str
    name: str
    old: Any
    new: Any


@dataclass(frozen=True)
class ScoreChange:
    """A metric of both versions on a split.

    Attributes:
        gap: Second minus first, with its 95 % interval; None if they were not scored on the same examples.
        verdict: Better, worse or undecided; None without a gap.
    """

    split: str
    metric: str
    old: float | None
    new: float | None
    gap: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: str | None = None


@dataclass(frozen=True)
class Changes:
    """All differences between two versions.

    Attributes:
        changes: The differences, by part.
        scores: Every metric of either.
        study_file: The lines of a unified diff of the study files; empty if they are the same.
    """

    old: str
    new: str
    changes: tuple[Change, ...]
    scores: tuple[ScoreChange, ...]
    study_file: tuple[str, ...]


def changes(database: Database, old: AdapterVersion, new: AdapterVersion) -> Changes:
    """Return what changed from ``old`` to ``new``.

    Raises:
        StudyStateError: If the database no longer has a study of theirs.
    """
    return Changes(
        str(old), str(new), tuple(_changes(old, new)), tuple(_scores(database, old, new)), _files(database, old, new)
    )


def _changes(old: AdapterVersion, new: AdapterVersion) -> Iterator[Change]:
    before_after = [_facts(version) for version in (old, new)]
    for part in before_after[0]:
        before, after = (facts[part] for facts in before_after)
        for name in dict.fromkeys([*before, *after]):
            if before.get(name) != after.get(name):
                yield Change(part, name, before.get(name), after.get(name))


def _facts(version: AdapterVersion) -> dict[str, Mapping[str, Any]]:
    """Return what can change between versions, by part and name."""
    lineage = version.lineage
    return {
        "hyperparameters": _flat(lineage.hyperparameters),
        "base model": {"name": lineage.base_model, "fingerprint": lineage.base_model_fingerprint},
        "data": lineage.data_sha256,
        "packages": {"sweeper": lineage.sweeper_version, **lineage.packages},
        "seeds": lineage.seeds,
        "origin": {
            "study": lineage.study,
            "trial": lineage.trial,
            "began from the weights of trial": lineage.initial_trial,
            "built on": ", ".join(lineage.built_on) or None,
            "bytes": version.bytes,
        },
    }


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return hyperparameters in one level; TRL's own fields begin with ``trl.``."""
    own = {name: value for name, value in values.items() if name != "trl"}
    return own | {f"trl.{name}": value for name, value in (values.get("trl") or {}).items()}


def _scores(database: Database, old: AdapterVersion, new: AdapterVersion) -> Iterator[ScoreChange]:
    paired = differences(database, new, old)
    for split in dict.fromkeys([*old.scores, *new.scores]):
        before, after = old.scores.get(split, {}), new.scores.get(split, {})
        for metric in dict.fromkeys([*before, *after]):
            values = before.get(metric, {}).get("score"), after.get(metric, {}).get("score")
            found = paired.get(metric) if split == "test" else None
            if found is None:
                yield ScoreChange(split, metric, *values)
            else:
                interval = found.interval
                yield ScoreChange(split, metric, *values, found.value, interval.low, interval.high, found.verdict)


def _files(database: Database, old: AdapterVersion, new: AdapterVersion) -> tuple[str, ...]:
    before, after = (database.studies.get(of.lineage.study).file_text.splitlines() for of in (old, new))
    return tuple(difflib.unified_diff(before, after, str(old), str(new), lineterm=""))
