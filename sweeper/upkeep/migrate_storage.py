"""Migration of a home from its SQLite file to a PostgreSQL server, all or nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sweeper.database_url import PostgresUrl
from sweeper.errors import DatabaseError, StudyStateError
from sweeper.paths import Home
from sweeper.search.storages.open import open_storage
from sweeper.store import Database
from sweeper.store.transfer import checkpointed, held_still, transfer

_BESIDE = ("", "-wal", "-shm")
"""The name endings of SQLite's files of one database."""


@dataclass(frozen=True)
class Moved:
    """What was moved.

    Attributes:
        rows: Number of rows, all of them compared.
        kept: The renamed SQLite file, unchanged.
    """

    server: PostgresUrl
    studies: int
    rows: int
    kept: Path


def migrate(
    home: Home, server: PostgresUrl, on_progress: Callable[[str, float], None] = lambda stage, part: None
) -> Moved:
    """Move everything in the home's SQLite file to a server, and bind the home to it.

    Nothing can write to the file meanwhile. An interruption leaves the home unchanged, and another call continues:
    what arrived in full is not copied twice.

    The server's database must be empty. ``on_progress`` gets the current stage and the fraction of it that is done.

    Raises:
        StudyStateError: If a study is running.
        DatabaseError: If the home has no SQLite file, or one of the databases cannot be used; the home is unchanged.
    """
    path = home.database_file
    kept = path.with_name(f"{path.stem}-before-migration{path.suffix}")
    if home.bound is not None:
        raise DatabaseError(f"{home.folder} is already bound to {home.bound}: there is nothing to move")
    if kept.exists():
        raise DatabaseError(f"{kept} is in the way: give it another name")
    with Database.open(path, create=False) as database:
        _refuse_running(database)
        studies = len(database.studies.all())
        for each in (path, server):  # Optuna's tables, where they are missing, and its version
            Database.open(each, create=True).close()
            open_storage(each).engine.dispose()
        checkpointed(path)
        with held_still(path) as source:
            _refuse_running(database)  # a study that starts now waits
            rows = transfer(source, server, lambda stage, done, total: on_progress(stage, done / max(total, 1)))
            home.bind(server)
            _rename(path, kept)
    checkpointed(kept)
    return Moved(server, studies, rows, kept)


def _refuse_running(database: Database) -> None:
    running = [study.name for study in database.studies.all() if database.workers.alive(study.name)]
    if running:
        raise StudyStateError(
            f"{', '.join(running)} is running: `sweeper stop {running[0]}`, migrate, then `sweeper resume` it"
        )


def _rename(path: Path, kept: Path) -> None:
    """Rename a database, so a process that has it open can no longer write to it by mistake."""
    for end in _BESIDE:
        beside = path.with_name(path.name + end)
        if beside.exists():
            beside.rename(kept.with_name(kept.name + end))
