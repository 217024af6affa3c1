"""Registered adapter versions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pandas as pd
from sweeper_dashboard.data import frames, home

from sweeper.registry import MOVES, AdapterVersion, Stage

STAGES = tuple(stage.value for stage in Stage if stage is not Stage.DELETED)
_MIB = 1024**2
_LINEAGE = ("config_sha256", "base_model", "base_model_fingerprint", "sweeper_version", "parent")
_SCORES = ("score", "low", "high", "diff_to_base", "diff_low", "diff_high")


@dataclass(frozen=True)
class Adapter:
    """One registered version.

    Attributes:
        study: The study that found it, as stored; clean it before it is shown.
        metric: The deciding test metric; empty if it was never scored.
        score: The score by it, with ``low`` and ``high`` as its interval.
        gain: The gain over its base model by that metric.
        parent: The version that it was trained to replace.
        built_on: The adapters that it needs, nearest first.
        initial_trial: The trial of its study whose weights it started from; None if it started from the base model.
        moves: The stages that it may move to, production included.
        origin: Its origin, one fact per row.
        scores: Its scores by split and metric at registration.
        files: Its files with their checksums.
    """

    name: str
    version: int
    stage: str
    study: str
    trial: int
    aliases: tuple[str, ...]
    tags: tuple[str, ...]
    note: str
    metric: str
    score: float | None
    low: float | None
    high: float | None
    gain: float | None
    mebibytes: float
    created_at: datetime
    base_model: str
    parent: int | None
    built_on: tuple[str, ...]
    initial_trial: int | None
    moves: tuple[str, ...]
    origin: pd.DataFrame
    hyperparameters: pd.DataFrame
    scores: pd.DataFrame
    files: pd.DataFrame

    @property
    def label(self) -> str:
        """Name and version, as shown."""
        return home.clean(f"{self.name} v{self.version}")

    @property
    def interval(self) -> str:
        """The interval of its score as text; empty without one."""
        return "" if self.low is None or self.high is None else f"{self.low:.3g} to {self.high:.3g}"

    @property
    def age(self) -> str:
        """Time since it was registered, in the largest whole unit."""
        seconds = max(0.0, (datetime.now(UTC) - self.created_at).total_seconds())
        for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
            if seconds >= length:
                count = int(seconds // length)
                return f"{count} {unit}{'s' * (count > 1)}"
        return "just now"

    def matches(self, words: str) -> bool:
        """Whether every word is in its name, study, base model, note, aliases or tags."""
        parts = (self.name, f"v{self.version}", self.study, self.base_model, self.note, *self.aliases, *self.tags)
        text = " ".join(parts).casefold()
        return all(word in text for word in words.casefold().split())


def adapters() -> list[Adapter]:
    """Return every registered version, newest first."""
    with home.database() as database:
        found = home.registry(database).all()
    return [_adapter(version, ()) for version in sorted(found, key=lambda of: of.created_at, reverse=True)]


def adapter(name: str, version: int) -> Adapter:
    """Return one version.

    Raises:
        RegistryError: If it does not exist; the message names the nearest.
    """
    with home.database() as database:
        registry = home.registry(database)
        found = registry.get(name, version)
        return _adapter(found, registry.ancestors(found))


def production(name: str) -> int | None:
    """Return the version of an adapter that is in production."""
    with home.database() as database:
        found = home.registry(database).production(name)
    return None if found is None else found.version


def _adapter(version: AdapterVersion, built_on: tuple[str, ...]) -> Adapter:
    lineage = version.lineage
    metric, deciding = next(iter(version.scores.get("test", {}).items()), ("", dict[str, Any]()))
    scores = [{"split": split} | values for split, of in version.scores.items() for values in of.values()]
    return Adapter(
        name=version.name,
        version=version.version,
        stage=version.stage.value,
        study=lineage.study,
        trial=lineage.trial,
        aliases=version.aliases,
        tags=tuple(home.clean(tag) for tag in version.tags),
        note=home.clean(version.note),
        metric=home.clean(metric),
        score=deciding.get("score"),
        low=deciding.get("low"),
        high=deciding.get("high"),
        gain=deciding.get("diff_to_base"),
        mebibytes=version.bytes / _MIB,
        created_at=version.created_at,
        base_model=home.clean(lineage.base_model),
        parent=lineage.parent,
        built_on=built_on,
        initial_trial=lineage.initial_trial,
        moves=tuple(stage.value for stage in MOVES[version.stage] if stage is not Stage.DELETED),
        origin=_origin(version),
        hyperparameters=_facts(frames.flat(lineage.hyperparameters)),
        scores=frames.frame(scores, ["split", "metric", *_SCORES]).astype(dict.fromkeys(_SCORES, float)),
        files=frames.frame([{"file": of, "SHA-256": sha256} for of, sha256 in version.files.items()], ["file"]),
    )


def _origin(version: AdapterVersion) -> pd.DataFrame:
    lineage = version.lineage
    facts = {"study": lineage.study, "trial": lineage.trial}
    facts |= {"started from the weights of trial": lineage.initial_trial}
    facts |= {name.replace("_", " "): getattr(lineage, name) for name in _LINEAGE}
    facts |= {f"data: {split}": digest for split, digest in lineage.data_sha256.items()}
    facts |= {f"seed of the {of}": seed for of, seed in lineage.seeds.items()}
    facts |= {f"package {name}": number for name, number in lineage.packages.items()}
    facts |= {"sha256 of the weights": version.sha256, "folder": str(version.folder)}
    return _facts(facts)


def _facts(facts: dict[str, Any]) -> pd.DataFrame:
    told = [{"what": name, "value": str(frames.cell(value))} for name, value in facts.items() if value is not None]
    return frames.frame(told, ["what", "value"])
