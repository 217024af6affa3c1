"""What SQLite's faults mean to a person, and what to do about each."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from sweeper.errors import DatabaseError

_NOT_OURS = "sweeper was given the wrong file, or something overwrote it; give another path"

_MEANINGS = (
    ("SQLITE_NOTADB", "is not an SQLite database", _NOT_OURS),
    (
        "SQLITE_CORRUPT",
        "is damaged or cut short",
        "restore a copy, or save what is left with sqlite3's .recover command",
    ),
    ("SQLITE_BUSY", "is locked by another process", "wait for that process or stop it, then try again"),
    ("SQLITE_LOCKED", "is locked by another connection", "wait for it, then try again"),
    ("SQLITE_FULL", "cannot grow: the disk is full", "free some space, then try again; what was stored is intact"),
    ("SQLITE_READONLY", "cannot be written", "give yourself permission to write the file and its folder"),
    ("SQLITE_CANTOPEN", "cannot be opened", "check that file and folder exist and that you may write both"),
    ("SQLITE_PERM", "may not be accessed", "give yourself permission to read and write the file and its folder"),
    ("SQLITE_IOERR", "cannot be read or written", "check the disk: its space, its quota and its health"),
)
"""(Beginning of SQLite's error name, what it means, what to do); the first that fits counts."""


def explain(error: BaseException, path: Path) -> DatabaseError:
    """Return a database driver's error as one that names the file, the fault and the way out."""
    name = getattr(error, "sqlite_errorname", "")
    for beginning, meaning, remedy in _MEANINGS:
        if name.startswith(beginning):
            return DatabaseError(f"database {path} {meaning} ({error}): {remedy}")
    return DatabaseError(f"database {path}: {error}; if it was changed by hand, restore a copy")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn any database error of the block into a ``DatabaseError`` about ``path``."""
    try:
        yield
    except DBAPIError as error:
        raise explain(error.orig or error, path) from error
    except sqlite3.Error as error:  # from a connection used without SQLAlchemy
        raise explain(error, path) from error
