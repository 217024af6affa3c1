"""How sweeper talks to a database of a PostgreSQL server."""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, Engine, create_engine, text

from sweeper.database_url import PostgresUrl
from sweeper.errors import DatabaseError

CONNECT_TIMEOUT_S = 10
STALLED_S = 300
"""A transaction of a process that stands still is ended after this long: others wait for what it holds."""

_ALL = "hashtextextended('sweeper ' || current_schema(), 0)"
_STUDY = "hashtextextended('sweeper study ' || current_schema() || ' ' || CAST(:study AS text), 0)"

LOCK_OF_ALL = text(f"SELECT pg_advisory_xact_lock({_ALL})")
"""Waits until nobody else writes, and lets nobody write until the transaction ends."""

LOCK_OF_STUDY = text(f"SELECT pg_advisory_xact_lock_shared({_ALL}), pg_advisory_xact_lock({_STUDY})")
"""The same for the writers of one study; those of others go on."""


def connection_arguments(server: PostgresUrl, *, busy_timeout_s: float) -> dict[str, Any]:
    """Return what ``create_engine`` takes for a server: ``url`` without a password, and ``connect_args`` with it.

    Locks are waited for as long as SQLite's; the server finds out within a minute that a machine is gone, and
    then lets go of what its processes held.

    Raises:
        DatabaseError: If a variable that the URL refers to is not set.
    """
    url = server.url
    query = dict(url.query)
    secrets: dict[str, Any] = {key: query.pop(key) for key in ("password", "sslpassword") if key in query}
    if url.password is not None:
        secrets["password"] = str(url.password)
    schema = query.pop("search_path", None)
    given = query.pop("options", "")
    settings: dict[str, Any] = {
        "lock_timeout": int(busy_timeout_s * 1000),
        "idle_in_transaction_session_timeout": STALLED_S * 1000,
        "tcp_keepalives_idle": 20,
        "tcp_keepalives_interval": 10,
        "tcp_keepalives_count": 3,
    }
    if schema is not None:
        settings["search_path"] = schema if isinstance(schema, str) else ",".join(schema)
    options = [given if isinstance(given, str) else " ".join(given)]
    options += [f"-c {name}={_escaped(value)}" for name, value in settings.items()]
    arguments: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "sweeper"}
    arguments = {key: value for key, value in arguments.items() if key not in query}
    # psycopg keeps a statement that was used often on the server, which a connection pooler in between may mix up.
    arguments |= {**secrets, "options": " ".join(options).strip(), "prepare_threshold": None}
    without = URL.create(url.drivername, url.username, None, url.host, url.port, url.database, query)
    return {"url": without, "connect_args": arguments, "pool_pre_ping": True}


def _escaped(value: object) -> str:
    """Return a setting's value as it stands among the options of a connection, which spaces divide."""
    return str(value).replace("\\", "\\\\").replace(" ", "\\ ")


def postgres_engine(server: PostgresUrl, *, busy_timeout_s: float, read_only: bool = False) -> Engine:
    """Return an engine; nothing is connected to yet. A connection that was lost is replaced when the next is needed.

    Raises:
        DatabaseError: If psycopg is not installed, or a variable that the URL refers to is not set.
    """
    arguments = connection_arguments(server, busy_timeout_s=busy_timeout_s)
    try:
        # Parameters stay out of error texts: they may hold what is not to be shown.
        engine = create_engine(**arguments, hide_parameters=True)
    except ImportError as error:
        raise missing_driver(error) from error
    return engine.execution_options(postgresql_readonly=True) if read_only else engine


def missing_driver(error: ImportError) -> DatabaseError:
    """Return what to do where psycopg, or the library below it, is missing."""
    return DatabaseError(
        f"PostgreSQL needs psycopg, which is not usable here ({error}): pip install 'sweeper[postgres]'"
    )
