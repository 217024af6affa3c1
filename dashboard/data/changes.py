"""What editors do to registered versions, and what was done to them; the registry's own rules hold here too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd
from sweeper_dashboard.data import frames, home

from sweeper.paths import Home
from sweeper.registry import Registry, Stage
from sweeper.registry import changes as between
from sweeper.registry.stages import was_forced
from sweeper.store import Action, Database


@dataclass(frozen=True)
class Changed:
    """What changed between two versions.

    Attributes:
        changes: What is not the same, a row a fact.
        scores: The scores of both, with the paired difference where both were scored on the same examples.
        study_file: The study files' differences; empty where they are the same.
    """

    changes: pd.DataFrame
    scores: pd.DataFrame
    study_file: str


def changed(name: str, old: int, new: int) -> Changed:
    """Return what changed from version ``old`` to ``new``."""
    with _registry() as (database, registry):
        found = between.changes(database, registry.get(name, old), registry.get(name, new))
    rows = [
        {"what": f"{of.part}: {of.name}", found.old: str(frames.cell(of.old)), found.new: str(frames.cell(of.new))}
        for of in found.changes
    ]
    scores = [
        {
            "split": of.split,
            "metric": of.metric,
            found.old: of.old,
            found.new: of.new,
            "difference": of.gap,
            "low": of.low,
            "high": of.high,
            "verdict": of.verdict,
        }
        for of in found.scores
    ]
    columns = ["split", "metric", found.old, found.new, "difference", "low", "high", "verdict"]
    numbers = dict.fromkeys(columns[2:-1], float)
    return Changed(
        frames.frame(rows, ["what", found.old, found.new]),
        frames.frame(scores, columns).astype(numbers),
        home.clean("\n".join(found.study_file)),
    )


def history(name: str) -> pd.DataFrame:
    """Return what was done to an adapter, the latest first; what overruled the gate is marked."""
    with _registry() as (_, registry):
        found = registry.history(name)
    rows = [
        {
            "at (UTC)": of.at,
            "who": of.actor,
            "what": of.kind,
            "version": of.version,
            "forced": "FORCED" if of.forced else "",
            "in words": of.message,
        }
        for of in found
    ]
    return frames.frame(rows, ["at (UTC)", "who", "what", "version", "forced", "in words"])


def move(name: str, version: int, stage: str, actor: str, *, force: bool = False, reason: str = "") -> str:
    """Move a version to another stage, and say so.

    Raises:
        RegistryError: If the move is not allowed, the gate refuses it, or someone else was faster.
    """
    with _registry() as (_, registry):
        found = registry.move(name, version, Stage(stage), actor=actor, force=force, reason=reason)
    return home.clean(f"{found} is now {found.stage}")


def roll_back(name: str, actor: str, reason: str = "") -> str:
    """Bring back the version that was in production before, and say so."""
    with _registry() as (_, registry):
        found = registry.roll_back(name, actor=actor, reason=reason)
        against = (
            ", though it had been forced in against the gate"
            if was_forced(registry.history(name), found.version)
            else ""
        )
    return home.clean(f"{found} is back in production{against}")


def describe(name: str, version: int, actor: str, *, tags: str, note: str) -> str:
    """Write a version's tags, separated by commas, and its note, and say so."""
    with _registry() as (_, registry):
        registry.set_tags(name, version, [tag for tag in tags.split(",") if tag.strip()], actor=actor)
        registry.annotate(name, version, note, actor=actor)
    return home.clean(f"{name} v{version}: tags and note are kept")


def set_alias(name: str, version: int, alias: str, actor: str) -> str:
    """Let an alias mean a version from now on, and say so."""
    with _registry() as (_, registry):
        return home.clean(f"{alias} now means {registry.set_alias(name, version, alias, actor=actor)}")


def remove_alias(name: str, version: int, alias: str, actor: str) -> str:
    """Take an alias from a version, and say so."""
    with _registry() as (_, registry):
        registry.remove_alias(name, version, alias, actor=actor)
    return home.clean(f"{alias} no longer means any version")


def record(database: Database, actor: str, kind: str, name: str, version: int, message: str) -> None:
    """Record something that changes no version: a scoring or an export that somebody asked for."""
    database.actions.add(Action(datetime.now(UTC), actor, kind, message, adapter=name, version=version))


@contextmanager
def _registry() -> Iterator[tuple[Database, Registry]]:
    with home.changing() as database:
        yield database, Registry(Home.current(), database)
