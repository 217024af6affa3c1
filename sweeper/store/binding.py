"""Binding of a home to the database that a study names; a home has only one."""

from __future__ import annotations

from sweeper.config.storage import PostgresStorage, SqliteStorage
from sweeper.database_url import PostgresUrl
from sweeper.errors import DatabaseError
from sweeper.paths import Home
from sweeper.store.database import Database


def bind(home: Home, storage: SqliteStorage | PostgresStorage | None) -> None:
    """Bind a home to the database that a study asks for, if it asks for one, and make its tables.

    Raises:
        DatabaseError: If the home has another database, or the one asked for cannot be used; the home is unchanged.
    """
    if storage is None:
        return
    present = home.database
    if isinstance(storage, SqliteStorage):
        if isinstance(present, PostgresUrl):
            raise _refusal(home, f"{present}", "its own SQLite file")
        return
    asked = storage.url
    if isinstance(present, PostgresUrl):
        if present.identity != asked.identity:
            raise _refusal(home, f"{present}", f"{asked}")
        return
    if Database.exists(present):
        with Database.open(present, create=False) as database:
            studies = len(database.studies.all())
        if studies:
            raise DatabaseError(
                f"the studies of {home.folder} are in {present.name}, and this study asks for {asked}: bring them "
                f"over with `sweeper migrate-storage '{asked}'`, or set SWEEPER_HOME to another folder"
            )
    Database.open(asked, create=True).close()
    home.bind(asked)


def _refusal(home: Home, present: str, asked: str) -> DatabaseError:
    return DatabaseError(
        f"the studies of {home.folder} are in {present}, and this study asks for {asked}: leave `storage` out, or set "
        "SWEEPER_HOME to another folder"
    )
