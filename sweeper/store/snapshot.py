"""Snapshots of a database at one moment, while others write to it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from sweeper.database_url import Address
from sweeper.errors import BackupError
from sweeper.store.faults import explain

_WHERE = "install PostgreSQL's client (`apt install postgresql-client`), or run pg_dump where the server is"


def snapshot(database: Address, folder: Path) -> Path:
    """Write a database at one moment into a folder, and return the file.

    Raises:
        BackupError: If it cannot be copied, or the copy is damaged.
    """
    if isinstance(database, Path):
        return _copy(database, folder / database.name)
    return _dump(database.url, folder / "sweeper.pgdump")


def _copy(database: Path, target: Path) -> Path:
    """Copy an SQLite file with its own backup function, in one read transaction: writers are not blocked."""
    source = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
    copy = sqlite3.connect(target)
    try:
        source.backup(copy)
        copy.execute("DELETE FROM sweeper_leases")
        copy.execute("DELETE FROM sweeper_workers")  # nothing runs the copy's studies
        copy.commit()
        faults = [line for (line,) in copy.execute("PRAGMA quick_check(3)") if line != "ok"]
    except sqlite3.Error as error:
        raise BackupError(f"no copy was made: {explain(error, database)}") from error
    finally:
        copy.close()
        source.close()
    if faults:
        raise BackupError(f"{database} is damaged, and so is its copy: {'; '.join(faults)}; nothing was kept")
    return target


def _dump(url: Any, target: Path) -> Path:
    """Write a dump of one moment with PostgreSQL's own tool; the password is not in its arguments."""
    tool = shutil.which("pg_dump")
    if tool is None:
        raise BackupError(f"the database is on a PostgreSQL server, and pg_dump is not on this machine: {_WHERE}")
    without = URL.create("postgresql", url.username, None, url.host, url.port, url.database, url.query)
    address = without.render_as_string(hide_password=False)
    environment = {**os.environ, **({"PGPASSWORD": str(url.password)} if url.password else {})}
    command = [tool, "--format=custom", f"--file={target}", f"--dbname={address}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise BackupError(f"pg_dump could not write the database: {done.stderr.strip()[:500]}")
    return target
