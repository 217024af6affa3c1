"""What a database's faults mean to a person, and what to do about each."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from sweeper.database_url import Address, PostgresUrl
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

_AGAIN = "check the server, then try again; what was stored is intact"

_SERVER_MEANINGS = (
    ("08", "has lost its connection", _AGAIN),
    ("57P0", "is being stopped or started", _AGAIN),
    ("28", "refuses this user", "check the user and the password in the URL, ${PGPASSWORD} or ~/.pgpass"),
    ("3D000", "does not exist", "make it with createdb, or correct the URL"),
    ("3F000", "has no such schema", "make it with CREATE SCHEMA, or correct search_path in the URL"),
    ("42501", "may not be used like this", "give the user of the URL the right to make and change tables there"),
    ("25006", "cannot be written", "name the server that takes writes, not a copy of it"),
    ("531", "cannot grow: the disk is full", "free some space there, then try again; what was stored is intact"),
    ("533", "takes no more connections", "end some of its users, or raise max_connections there"),
    ("55P03", "is locked by another process", "wait for that process or stop it, then try again"),
    ("57014", "took too long", "try again when the server has less to do"),
    ("25P0", "ended a transaction that stood still", "try again; nothing of it was stored"),
    ("40", "was changed by another process meanwhile", "try again; nothing was stored"),
    ("XX00", "is damaged", "ask whoever runs the server to check its disk and to restore a copy"),
)
"""(Beginning of the server's error code, what it means, what to do); the first that fits counts."""

_CONNECTING = (
    (re.compile(r'database "[^"]*" does not exist'), "3D000"),
    (re.compile(r"password|authentication|pg_hba|role .* does not exist"), "28"),
    (re.compile(r"starting up|shutting down|recovery mode"), "57P0"),
    (re.compile(r"too many|connection slots|connection limit"), "533"),
)
"""What a server says that refuses a connection, which comes without its code, and the code."""


def explain(error: BaseException, address: Address) -> DatabaseError:
    """Return a database driver's error as one that names the database, the fault and the way out."""
    if isinstance(address, PostgresUrl):
        return _explain_server(error, address)
    name = getattr(error, "sqlite_errorname", "")
    for beginning, meaning, remedy in _MEANINGS:
        if name.startswith(beginning):
            return DatabaseError(f"database {address} {meaning} ({error}): {remedy}")
    return DatabaseError(f"database {address}: {error}; if it was changed by hand, restore a copy")


def _explain_server(error: BaseException, server: PostgresUrl) -> DatabaseError:
    said = server.hide(" ".join(str(error).split()))
    code = getattr(error, "sqlstate", None) or next((code for form, code in _CONNECTING if form.search(said)), "")
    if not code and type(error).__name__ == "OperationalError":  # there was no server to give one
        return DatabaseError(f"database {server} cannot be reached or was lost ({said}): {_AGAIN}")
    for beginning, meaning, remedy in _SERVER_MEANINGS:
        if code.startswith(beginning):
            return DatabaseError(f"database {server} {meaning} ({said}): {remedy}")
    return DatabaseError(f"database {server}: {said}")


@contextmanager
def explained(address: Address) -> Iterator[None]:
    """Turn any database error of the block into a ``DatabaseError`` about ``address``."""
    try:
        yield
    except DBAPIError as error:
        raise explain(error.orig or error, address) from error
    except StatementError as error:  # a value that cannot be stored, refused by the type of its column
        if isinstance(error.orig, DatabaseError):
            raise error.orig from error
        raise
    except PoolTimeout as error:
        raise DatabaseError(
            f"database {address}: all connections of this process are in use; end some of what it does"
        ) from error
    except sqlite3.Error as error:  # from a connection used without SQLAlchemy
        raise explain(error, address) from error
