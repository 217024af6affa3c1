"""``sweeper migrate-storage``: from the home's SQLite file to a PostgreSQL server."""

from __future__ import annotations

from typing import Annotated

import typer

from sweeper.cli.output import emit_json, progress, safe, say
from sweeper.database_url import PostgresUrl
from sweeper.paths import Home
from sweeper.upkeep.migrate_storage import migrate


def migrate_storage(
    url: Annotated[
        str,
        typer.Argument(
            help="postgresql+psycopg://USER:${PGPASSWORD}@HOST:PORT/DATABASE, in single quotes; the database is empty.",
            show_default=False,
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Move the studies of this home to a PostgreSQL database.

    Every row is compared after it was copied; all of them count, or none. Stopped by whatever, it can be called again.
    The SQLite file stays beside the home's other files under another name.
    """
    home = Home.current()
    with progress() as on_progress:
        moved = migrate(home, PostgresUrl.parse(url), on_progress)
    if as_json:
        emit_json(
            {"database": str(moved.server), "studies": moved.studies, "rows": moved.rows, "kept": str(moved.kept)}
        )
        return
    say(f"{moved.studies} studies ({moved.rows:,} rows, each compared) are in {safe(moved.server)} now")
    say(f"{safe(home.folder)} uses it from now on; {safe(moved.kept)} is as it was, and no longer used")
