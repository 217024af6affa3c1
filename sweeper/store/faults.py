"""Database errors, explained."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from sweeper.database_url import Address, PostgresUrl
from sweeper.errors import DatabaseError
from sweeper.faults import SERVER_FAULTS, SQLITE_FAULTS, find_fault

_CONNECTING = (
    (re.compile(r'database "[^"]*" does not exist'), "3D000"),
    (re.compile(r"password|authentication|pg_hba|role .* does not exist"), "28"),
    (re.compile(r"starting up|shutting down|recovery mode"), "57P"),
    (re.compile(r"too many|connection slots|connection limit"), "533"),
)
"""The message of a server that refuses a connection, which comes without its code; and the code."""


def explain(error: BaseException, address: Address) -> DatabaseError:
    """Return a database driver's error as one that names the database, the fault and the remedy."""
    if isinstance(address, PostgresUrl):
        return _explain_server(error, address)
    if fault := find_fault(SQLITE_FAULTS, getattr(error, "sqlite_errorname", "")):
        return DatabaseError(f"database {address} {fault.meaning} ({error}): {fault.remedy}")
    return DatabaseError(f"database {address}: {error}; if it was changed by hand, restore a copy")


def _explain_server(error: BaseException, server: PostgresUrl) -> DatabaseError:
    message = server.hide(" ".join(str(error).split()))
    code = getattr(error, "sqlstate", None) or next((code for form, code in _CONNECTING if form.search(message)), "")
    if not code and type(error).__name__ == "OperationalError":  # there was no server to give one
        return DatabaseError(
            f"database {server} cannot be reached or was lost ({message}): check the server; what was stored is intact"
        )
    if fault := find_fault(SERVER_FAULTS, code):
        return DatabaseError(f"database {server} {fault.meaning} ({message}): {fault.remedy}")
    return DatabaseError(f"database {server}: {message}")


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
        raise DatabaseError(f"database {address}: this process has used up its connections; close some") from error
    except sqlite3.Error as error:  # from a connection used without SQLAlchemy
        raise explain(error, address) from error
