"""The gate to production as the adapters page shows it, and the scoring that it may need."""

from __future__ import annotations

from functools import lru_cache

from sweeper_dashboard.data import home, jobs
from sweeper_dashboard.data.changes import record

from sweeper.database_url import Address
from sweeper.paths import Home
from sweeper.registry import GateResult, Registry
from sweeper.registry.stages import before, was_forced


def judgement(name: str, version: int) -> GateResult:
    """Return what the gate says of a version now; computed again only where a study or a stage changed since."""
    with home.database() as database:
        registry = Registry(Home.current(), database)
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
        return Registry(Home.current(), database).judge(name, version)


def rollback_target(name: str) -> int | None:
    """Return the version that a rollback brings back; None where there is none."""
    with home.database() as database:
        registry = Registry(Home.current(), database)
        production = registry.production(name)
        found = before(registry.history(name), None if production is None else production.version)
        known = {of.version for of in registry.all(name) if of.stage.value == "archived"}
    return found if found in known else None


def forced_in(name: str, version: int) -> bool:
    """Tell whether a version was forced in against the gate when it was promoted last."""
    with home.database() as database:
        return was_forced(Registry(Home.current(), database).history(name), version)


def start_scoring(name: str, version: int, actor: str) -> None:
    """Score in a process of its own what the gate lacks.

    Raises:
        SweeperError: If it is being done already.
    """
    jobs.start(_key(name, version), ["adapters", "compare", name, str(version), "--json"])
    with home.changing() as database:
        record(database, actor, "compare", name, version, f"{name} v{version} is being scored for the gate")


def scoring(name: str, version: int) -> jobs.Job:
    """Return how the scoring stands."""
    return jobs.look(_key(name, version))


def _key(name: str, version: int) -> str:
    return f"compare-{name}-v{version}"
