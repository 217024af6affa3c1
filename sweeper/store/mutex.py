"""One at a time, over all processes and machines that use a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, text

_KEY = "hashtextextended('sweeper mutex ' || current_schema() || ' ' || CAST(:name AS text), 0)"


@contextmanager
def advisory_lock(engine: Engine, name: str, *, timeout_s: float | None = None) -> Iterator[None]:
    """Hold the lock called ``name``, on a connection of its own: it is let go of however this process ends.

    Schemas of one database have locks of their own.

    Args:
        engine: On the PostgreSQL database.
        name: What is locked, of any length.
        timeout_s: How long to wait; as long as the engine's connections wait for any lock, if left out.

    Raises:
        sqlalchemy.exc.OperationalError: If somebody else holds it for too long, or the connection was lost: then it
            may have been held by another one meanwhile.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if timeout_s is not None:
            connection.execute(
                text("SELECT set_config('lock_timeout', :ms, false)"), {"ms": str(int(timeout_s * 1000))}
            )
        try:
            connection.execute(text(f"SELECT pg_advisory_lock({_KEY})"), {"name": name})
            yield
            connection.execute(text(f"SELECT pg_advisory_unlock({_KEY})"), {"name": name})
        finally:
            # Closed, not put back to be used again: the lock goes in every case, the setting too.
            connection.invalidate()
