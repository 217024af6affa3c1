"""Changes to registered versions, their history and differences, and the gate to production."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import pandas as pd

from sweeper.database_url import Address
from sweeper.registry import GateResult, Stage
from sweeper.registry import changes as between
from sweeper.registry.stages import before, was_forced
from sweeper.store import Action, Database
from sweeper_dashboard.data import frames, home, jobs


@dataclass(frozen=True)
class VersionDifferences:
    """Differences between two versions.

    Attributes:
        changes: The facts that differ, one per row.
        scores: The scores of both, with the paired difference if both were scored on the same examples.
        study_file: The difference of the study files; empty if they are identical.
    """

    changes: pd.DataFrame
    scores: pd.DataFrame
    study_file: str


def changed(name: str, old: int, new: int) -> VersionDifferences:
    """Return what changed from version ``old`` to ``new``."""
    with home.changing() as database:
        registry = home.registry(database)
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
    return VersionDifferences(
        frames.frame(rows, ["what", found.old, found.new]),
        frames.frame(scores, columns).astype(numbers),
        home.clean("\n".join(found.study_file)),
    )


def history(name: str) -> pd.DataFrame:
    """Return the history of an adapter, latest first; actions that overrode the gate are marked."""
    with home.database() as database:
        found = home.registry(database).history(name)
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
    """Move a version to another stage, and return a message.

    Raises:
        RegistryError: If the move is not allowed, the gate refuses it, or another user was faster.
    """
    with home.changing() as database:
        found = home.registry(database).move(name, version, Stage(stage), actor=actor, force=force, reason=reason)
    return home.clean(f"{found} is now {found.stage}")


def roll_back(name: str, actor: str, reason: str = "") -> str:
    """Restore the version that was in production before, and return a message."""
    with home.changing() as database:
        registry = home.registry(database)
        found = registry.roll_back(name, actor=actor, reason=reason)
        forced = was_forced(registry.history(name), found.version)
    against = ", although it was promoted against the gate" if forced else ""
    return home.clean(f"{found} is back in production{against}")


def describe(name: str, version: int, actor: str, *, tags: str, note: str) -> str:
    """Set a version's tags, separated by commas, and its note, and return a message."""
    with home.changing() as database:
        registry = home.registry(database)
        registry.set_tags(name, version, [tag for tag in tags.split(",") if tag.strip()], actor=actor)
        registry.annotate(name, version, note, actor=actor)
    return home.clean(f"{name} v{version}: tags and note saved")


def set_alias(name: str, version: int, alias: str, actor: str) -> str:
    """Point an alias at a version, and return a message."""
    with home.changing() as database:
        found = home.registry(database).set_alias(name, version, alias, actor=actor)
    return home.clean(f"{alias} now means {found}")


def remove_alias(name: str, version: int, alias: str, actor: str) -> str:
    """Remove an alias from a version, and return a message."""
    with home.changing() as database:
        home.registry(database).remove_alias(name, version, alias, actor=actor)
    return home.clean(f"{alias} was removed")


def record(database: Database, actor: str, kind: str, name: str, version: int, message: str) -> None:
    """Record an action that changes no version: a scoring or an export."""
    database.actions.add(Action(datetime.now(UTC), actor, kind, message, adapter=name, version=version))


def judgement(name: str, version: int) -> GateResult:
    """Return the gate's current verdict on a version, cached until a study or a stage changes."""
    with home.database() as database:
        registry = home.registry(database)
        candidate = registry.get(name, version)
        opponent = registry.opponent(candidate)
        studies = {of.lineage.study for of in (candidate, opponent) if of is not None}
        changes = tuple(database.studies.get(study).changes for study in sorted(studies))
        against = None if opponent is None else (opponent.version, opponent.stage.value)
        return _judged(database.address, name, version, against, changes)


@lru_cache(maxsize=256)
def _judged(
    address: Address, name: str, version: int, against: tuple[int, str] | None, changes: tuple[int, ...]
) -> GateResult:
    with home.database() as database:
        return home.registry(database).judge(name, version)


def rollback_target(name: str) -> int | None:
    """Return the version that a rollback restores, if any."""
    with home.database() as database:
        registry = home.registry(database)
        production = registry.production(name)
        found = before(registry.history(name), None if production is None else production.version)
        known = {of.version for of in registry.all(name) if of.stage.value == "archived"}
    return found if found in known else None


def forced_in(name: str, version: int) -> bool:
    """Return whether the last promotion of a version was forced against the gate."""
    with home.database() as database:
        return was_forced(home.registry(database).history(name), version)


def start_scoring(name: str, version: int, actor: str) -> str:
    """Score what the gate is missing in a separate process, and return a message.

    Raises:
        SweeperError: If it is already running.
    """
    jobs.start(_key(name, version), ["adapters", "compare", name, str(version), "--json"])
    message = f"{name} v{version} is being scored for the gate"
    with home.changing() as database:
        record(database, actor, "compare", name, version, message)
    return home.clean(message)


def scoring(name: str, version: int) -> jobs.JobStatus:
    """Return the state of the scoring."""
    return jobs.look(_key(name, version))


def _key(name: str, version: int) -> str:
    return f"compare-{name}-v{version}"
