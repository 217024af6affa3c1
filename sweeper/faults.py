"""Faults of disks and databases: what each means, what to do, and whether it may pass by waiting."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_DISK = {
    errno.ENOSPC: ("the disk is full", "free some space"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, or have the quota raised"),
    errno.EROFS: ("the disk is read-only", "mount it for writing"),
    errno.EIO: ("the disk fails", "check its health"),
    errno.ESTALE: ("the network disk is gone", "mount it again"),
    errno.EHOSTDOWN: ("the network disk is gone", "mount it again"),
    errno.ENOTCONN: ("the network disk is gone", "mount it again"),
    errno.ETIMEDOUT: ("the network disk does not answer", "check the network"),
}
"""Meaning and remedy by error number; all of these may pass."""

_OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""How libraries written in Rust, safetensors among them, report an error number."""

_HELD = ("another process holds the study", "let it continue, or stop it")
_SERVER_LOST = ("the database server cannot be reached", "start it, or check the network")


class DatabaseFault(NamedTuple):
    """A fault that a database reports.

    Attributes:
        code: The beginning of SQLite's error name, or of the server's SQLSTATE.
        meaning: What is wrong, continuing "the database ...".
        remedy: What to do.
        passes: Whether it may pass by waiting.
    """

    code: str
    meaning: str
    remedy: str
    passes: bool = False


_NOT_OURS = "sweeper was given the wrong file, or something overwrote it; give another path"
_INTACT = "what was stored is intact"
_LOCKED = ("is locked by another process", "wait for that process, or stop it")

SQLITE_FAULTS = (
    DatabaseFault("SQLITE_NOTADB", "is not an SQLite database", _NOT_OURS),
    DatabaseFault(
        "SQLITE_CORRUPT", "is damaged or cut short", "restore a copy, or salvage it with sqlite3's .recover command"
    ),
    DatabaseFault("SQLITE_BUSY", *_LOCKED, passes=True),
    DatabaseFault("SQLITE_LOCKED", "is locked by another connection", "wait for it", passes=True),
    DatabaseFault("SQLITE_FULL", "cannot grow: the disk is full", f"free some space; {_INTACT}", passes=True),
    DatabaseFault("SQLITE_READONLY", "cannot be written", "make its file, folder and disk writable", passes=True),
    DatabaseFault(
        "SQLITE_CANTOPEN", "cannot be opened", "check that file and folder exist and are writable", passes=True
    ),
    DatabaseFault("SQLITE_PERM", "may not be accessed", "give yourself permission to read and write file and folder"),
    DatabaseFault(
        "SQLITE_IOERR", "cannot be read or written", "check the disk: its space, its quota and its health", passes=True
    ),
)
SERVER_FAULTS = (
    DatabaseFault("08", "has lost its connection", f"check the server; {_INTACT}", passes=True),
    DatabaseFault("57P", "is being stopped or started", f"check the server; {_INTACT}", passes=True),
    DatabaseFault("28", "refuses this user", "check the user and the password in the URL, ${PGPASSWORD} or ~/.pgpass"),
    DatabaseFault("3D000", "does not exist", "make it with createdb, or correct the URL"),
    DatabaseFault("3F000", "has no such schema", "make it with CREATE SCHEMA, or correct search_path in the URL"),
    DatabaseFault("42501", "may not be used like this", "let the user of the URL make and change tables there"),
    DatabaseFault("25006", "cannot be written", "name the server that takes writes, not a copy of it"),
    DatabaseFault("531", "cannot grow: the disk is full", f"free some space there; {_INTACT}", passes=True),
    DatabaseFault(
        "533", "takes no more connections", "end some of its users, or raise max_connections there", passes=True
    ),
    DatabaseFault("53", "is out of resources", "give the server more disk, memory or connections", passes=True),
    DatabaseFault("55P03", *_LOCKED, passes=True),
    DatabaseFault("57014", "took too long", "try again when the server is less busy"),
    DatabaseFault("25P0", "ended an idle transaction", "try again; nothing of it was stored"),
    DatabaseFault("40", "was changed by another process meanwhile", "try again; nothing was stored"),
    DatabaseFault("XX00", "is damaged", "ask the server's administrator to check its disk and to restore a copy"),
)


def find_fault(faults: Iterable[DatabaseFault], code: str) -> DatabaseFault | None:
    """Return the first of ``faults`` that an error name or code stands for."""
    return next((fault for fault in faults if code.startswith(fault.code)), None)


def passing(error: BaseException) -> tuple[str, str] | None:
    """Return what is wrong and what to do, of an error that may pass by waiting; None for any other."""
    return next(filter(None, map(_of_one, _causes(error))), None)


def driver_message(error: BaseException) -> str:
    """Return the driver's or system's own message on one line, without the statement and links SQLAlchemy adds."""
    originals = (getattr(cause, "orig", None) for cause in _causes(error))
    driver = next((original for original in originals if original is not None), error)
    return " ".join(str(driver).split()) or type(driver).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what caused it, the innermost last."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = getattr(cause, "orig", None) or cause.__cause__ or cause.__context__


def _of_one(error: BaseException) -> tuple[str, str] | None:
    if isinstance(error, TimeoutError) and error.errno is None:
        return _HELD
    if isinstance(error, ConnectionError) or getattr(error, "connection_invalidated", False):
        return _SERVER_LOST
    if isinstance(error, OSError) and error.errno in _DISK:
        return _DISK[error.errno]
    if match := _OS_ERROR.search(str(error)):
        return _DISK.get(int(match[1]))
    for attribute, faults in (("sqlite_errorname", SQLITE_FAULTS), ("sqlstate", SERVER_FAULTS)):
        if isinstance(code := getattr(error, attribute, None), str):
            fault = find_fault(faults, code)
            return (f"the database {fault.meaning}", fault.remedy) if fault and fault.passes else None
    if type(error).__module__.startswith("psycopg") and type(error).__name__ == "OperationalError":
        return _SERVER_LOST  # the connection failed before the server could say why
    return None
