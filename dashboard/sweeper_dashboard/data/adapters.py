"""Registered adapter versions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from sweeper.registry import MOVES, AdapterVersion, Stage
from sweeper_dashboard.data import frames, home

STAGES = tuple(stage.value for stage in Stage if stage is not Stage.DELETED)
_MIB = 1024**2
_LINEAGE = ("config_sha256", "base_model", "base_model_fingerprint", "sweeper_version", "parent")
_SCORES = ("score", "low", "high", "diff_to_base", "diff_low", "diff_high")


@dataclass(frozen=True)
class Adapter(AdapterVersion):
    """A registered version with its tables; the name of its study is as stored, so clean it before it is shown.

    Attributes:
        built_on: The adapters that it needs, nearest first.
    """

    built_on: tuple[str, ...] = ()

    @property
    def deciding(self) -> dict[str, Any]:
        """The ``metric``, ``score``, interval and gain of the deciding test metric; empty if it was never scored."""
        return next(iter(self.scores.get("test", {}).values()), {})

    @property
    def mebibytes(self) -> float:
        """Size of its files."""
        return self.bytes / _MIB

    @property
    def moves(self) -> tuple[str, ...]:
        """The stages that it may move to, production included."""
        return tuple(stage.value for stage in MOVES[self.stage] if stage is not Stage.DELETED)

    @property
    def origin(self) -> pd.DataFrame:
        """Its origin, one fact per row."""
        lineage = self.lineage
        facts = {"study": lineage.study, "trial": lineage.trial}
        facts |= {"started from the weights of trial": lineage.initial_trial}
        facts |= {name.replace("_", " "): getattr(lineage, name) for name in _LINEAGE}
        facts |= {f"data: {split}": digest for split, digest in lineage.data_sha256.items()}
        facts |= {f"seed of the {of}": seed for of, seed in lineage.seeds.items()}
        facts |= {f"package {name}": number for name, number in lineage.packages.items()}
        return _facts(facts | {"sha256 of the weights": self.sha256, "folder": str(self.folder)})

    @property
    def hyperparameters(self) -> pd.DataFrame:
        """The hyperparameters of its training."""
        return _facts(frames.flat(self.lineage.hyperparameters))

    @property
    def score_table(self) -> pd.DataFrame:
        """Its scores by split and metric at registration."""
        rows = [{"split": split} | values for split, of in self.scores.items() for values in of.values()]
        return frames.frame(rows, ["split", "metric", *_SCORES]).astype(dict.fromkeys(_SCORES, float))

    @property
    def file_table(self) -> pd.DataFrame:
        """Its files with their checksums."""
        return frames.frame([{"file": of, "SHA-256": sha256} for of, sha256 in self.files.items()], ["file"])

    @property
    def label(self) -> str:
        """Name and version, as shown."""
        return home.clean(self)

    @property
    def interval(self) -> str:
        """The interval of its score as text; empty without one."""
        low, high = self.deciding.get("low"), self.deciding.get("high")
        return "" if low is None or high is None else f"{low:.3g} to {high:.3g}"

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
        parts = (str(self), self.lineage.study, self.lineage.base_model, self.note, *self.aliases, *self.tags)
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
    cleaned = {"tags": tuple(map(home.clean, version.tags)), "note": home.clean(version.note)}
    return Adapter(**{**vars(version), **cleaned}, built_on=built_on)


def _facts(facts: dict[str, Any]) -> pd.DataFrame:
    told = [{"what": name, "value": str(frames.cell(value))} for name, value in facts.items() if value is not None]
    return frames.frame(told, ["what", "value"])
