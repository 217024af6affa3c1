"""The home that is shown, its database and its registry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sweeper.database_url import Address
from sweeper.errors import DatabaseError, SweeperError, UserError
from sweeper.paths import Home
from sweeper.redact import clean, redact
from sweeper.registry import Registry
from sweeper.store import Database

__all__ = [
    "NothingYet",
    "SweeperError",
    "UserError",
    "changing",
    "clean",
    "database",
    "home_folder",
    "registry",
    "said",
]

_BUSY_TIMEOUT_S = 5.0


class NothingYet(DatabaseError):
    """The home has no database, so no study was ever run in it."""


def said(error: object) -> str:
    """Return the message of an error or a program, cleaned and without secrets."""
    return clean(redact(str(error)))


def home_folder() -> str:
    """Return the folder of the home that is shown."""
    return clean(Home.current().folder)


@contextmanager
def database() -> Iterator[Database]:
    """Open the home's database read-only: nothing in the file changes.

    Raises:
        NothingYet: If there is none.
        DatabaseError: If it cannot be used, or is of another version of sweeper.
    """
    with Database.open(_address(), create=False, read_only=True, busy_timeout_s=_BUSY_TIMEOUT_S) as found:
        yield found


@contextmanager
def changing() -> Iterator[Database]:
    """Open the home's database to change something.

    Raises:
        NothingYet: If there is none.
        DatabaseError: If it cannot be used.
    """
    with Database.open(_address(), create=False, busy_timeout_s=_BUSY_TIMEOUT_S) as found:
        yield found


def registry(database: Database) -> Registry:
    """Return the registry of the home."""
    return Registry(Home.current(), database)


def _address() -> Address:
    address = Home.current().database
    if not Database.exists(address):
        raise NothingYet(f"no database at {address}")
    return address
