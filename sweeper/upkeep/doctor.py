"""Finding and repairing inconsistencies between the database, the search and the files of a study."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sweeper.errors import DatabaseError, StudyStateError
from sweeper.models.cache import OnStage
from sweeper.paths import Home
from sweeper.search.storages.atomic import AtomicStorage
from sweeper.search.storages.open import open_storage
from sweeper.search.storages.stored_trials import stored_trials
from sweeper.search.study import Search
from sweeper.store import Database
from sweeper.upkeep import files, records
from sweeper.upkeep.facts import Check, Facts, Inconsistency, runs

CHECKS: tuple[Check, ...] = (
    records.search_is_there,
    records.leases_are_held,
    records.trials_agree,
    records.state_is_true,
    records.orders_can_be_done,
    files.nothing_half_written,
    files.artifacts_are_whole,
    files.specifications_are_there,
    files.folders_are_known,
    files.data_are_the_same,
    files.bases_are_there,
    files.versions_are_whole,
)
"""Every check of a study."""

_MOST_ROUNDS = 4
"""A repair may reveal another inconsistency behind it."""


@dataclass(frozen=True)
class Diagnosis:
    """An ``Inconsistency`` and its repair: whether there is one without a guess, and its result if it was done."""

    study: str
    kind: str
    text: str
    advice: str
    mendable: bool
    mended: str | None = None


def diagnose(home: Home, name: str, *, repair: bool, on_progress: OnStage) -> list[Diagnosis]:
    """Find every inconsistency of a study, and ``repair`` those that can be.

    A second repair finds nothing to do.

    Raises:
        StudyStateError: If there is no such study, or it is to be repaired while a process runs it.
        DatabaseError: If the database cannot be read at all.
    """
    found = list(_schema(home, name, repair=repair))
    with Database.open(home.database, create=False) as database:
        found += [_diagnosis(name, each) for each in _of_database(database)]
        storage = open_storage(home.database)
        if database.studies.find(name) is None:
            return found + _unbegun(database, name, storage, repair=repair)

        def examine() -> list[Inconsistency]:
            return _examine(Facts.of(home, database, name, storage), on_progress)

        if not repair:
            return found + [_diagnosis(name, each) for each in examine()]
        with database.study_lock(name):
            return found + _repair(database, name, examine)


def _schema(home: Home, name: str, *, repair: bool) -> Iterator[Diagnosis]:
    """Bring a database of an older sweeper up to date, or raise unless it is to be repaired."""
    try:
        Database.open(home.database, create=False, read_only=True).close()
    except DatabaseError as error:
        if not repair:
            raise
        Database.open(home.database, create=False).close()  # raises what cannot be repaired
        yield Diagnosis(name, "schema", str(error), "`--repair` brings it up to date", True, "brought it up to date")


def _of_database(database: Database) -> Iterator[Inconsistency]:
    for fault in database.integrity.faults():
        yield Inconsistency(
            "database damaged",
            f"{database.address}: {fault}",
            "stop what writes to it and restore it from a backup, or salvage it with sqlite3's .recover command",
        )
    for orphan in database.integrity.orphans():
        advice = "it was changed by hand, or by another program: restore it from a backup"
        yield Inconsistency("database damaged", f"{database.address}: {orphan}", advice)


def _examine(facts: Facts, on_progress: OnStage) -> list[Inconsistency]:
    found: list[Inconsistency] = []
    for place, check in enumerate(CHECKS):
        on_progress(f"checking {facts.name}", place / len(CHECKS))
        found += check(facts)
    return found


def _repair(database: Database, name: str, examine: Callable[[], list[Inconsistency]]) -> list[Diagnosis]:
    if runs(database, name):
        raise StudyStateError(f"study {name!r} is running, so it cannot be repaired: `sweeper stop {name}` first")
    mended: list[Diagnosis] = []
    found = examine()
    for _ in range(_MOST_ROUNDS):
        mendable = [each for each in found if each.mend is not None]
        if not mendable:
            break
        for each in mendable:
            assert each.mend is not None
            each.mend()
            database.events.add(name, "repaired", f"{each.text}: {each.done}")
            mended.append(_diagnosis(name, each, each.done))
        found = examine()
    return mended + [_diagnosis(name, each) for each in found]


def _unbegun(database: Database, name: str, storage: AtomicStorage, *, repair: bool) -> list[Diagnosis]:
    """Diagnose a search whose study was never recorded: its process died while starting.

    Raises:
        StudyStateError: If there is no such search either; names the nearest study.
    """
    stored = stored_trials(name, storage)
    if stored is None:
        database.studies.get(name)  # raises, naming the nearest
    untouched = all(trial.state == "waiting" for trial in (stored or {}).values())
    text = f"Optuna's tables have a search {name!r} without a study in the database: its process died while starting"
    advice = "`--repair` removes it" if untouched else "it has started trials: restore the database from a backup"
    done = None
    if repair and untouched:
        Search.forget_unbegun(name, storage)
        done = "removed the search"
    return [Diagnosis(name, "search without study", text, advice, untouched, done)]


def _diagnosis(study: str, found: Inconsistency, mended: str | None = None) -> Diagnosis:
    return Diagnosis(study, found.kind, found.text, found.advice, found.mend is not None, mended)
