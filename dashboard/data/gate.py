"""The gate to production, and the scoring that it may need."""

from __future__ import annotations

from functools import lru_cache

from sweeper_dashboard.data import home, jobs
from sweeper_dashboard.data.changes import record

from sweeper.database_url import Address
from sweeper.registry import GateResult
from sweeper.registry.stages import before, was_forced


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
