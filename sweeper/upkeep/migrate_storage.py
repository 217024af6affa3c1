"""A home's studies from its SQLite file to a PostgreSQL server: all of them, or none."""

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
"""What SQLite keeps of a database, by the end of its name."""


@dataclass(frozen=True)
class Moved:
    """What was moved.

    Attributes:
        server: Where everything is now.
        studies: Number of studies.
        rows: Number of rows, each of them compared.
        kept: The SQLite file as it was, under its new name.
    """

    server: PostgresUrl
    studies: int
    rows: int
    kept: Path


def migrate(
    home: Home, server: PostgresUrl, on_progress: Callable[[str, float], None] = lambda stage, part: None
) -> Moved:
    """Move everything that the home's SQLite file holds to a server, and let the home use that.

    Nobody can write to the file meanwhile. What ends this in between leaves the home as it was, and calling it again
    goes on: what arrived whole is not copied twice.

    Args:
        home: The home.
        server: An empty database.
        on_progress: Told what is being done, and which part of it is done.

    Raises:
        StudyStateError: If a study is being run.
        DatabaseError: If the home has no SQLite file, or one of the databases cannot be used; the home is as it was.
    """
    path = home.database_file
    kept = path.with_name(f"{path.stem}-before-migration{path.suffix}")
    if home.bound is not None:
        raise DatabaseError(f"{home.folder} is bound to {home.bound} already: there is nothing to move")
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
            _refuse_running(database)  # whoever came since waits
            rows = transfer(source, server, lambda stage, done, total: on_progress(stage, done / max(total, 1)))
            home.bind(server)
            _rename(path, kept)
    checkpointed(kept)
    return Moved(server, studies, rows, kept)


def _refuse_running(database: Database) -> None:
    running = [study.name for study in database.studies.all() if database.workers.alive(study.name)]
    if running:
        raise StudyStateError(
            f"{', '.join(running)} is being run: `sweeper stop {running[0]}`, then move; `sweeper resume` goes on after"
        )


def _rename(path: Path, kept: Path) -> None:
    """Give a database another name, so that a process which has it open cannot write to it any more by mistake."""
    for end in _BESIDE:
        beside = path.with_name(path.name + end)
        if beside.exists():
            beside.rename(kept.with_name(kept.name + end))
