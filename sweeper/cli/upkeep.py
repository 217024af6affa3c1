"""``sweeper gc``, ``backup`` and ``migrate-storage``: upkeep of a whole home."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sweeper.cli.output import Json, console, emit_json, progress, safe, say, table
from sweeper.config.storage import size_text
from sweeper.database_url import PostgresUrl
from sweeper.paths import Home
from sweeper.store import Database


def gc(
    study: Annotated[str | None, typer.Argument(help="Only this study.", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be deleted; delete nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Delete files that are no longer needed, and give the reason for each.

    These are: temporary files of dead processes, folders of studies that are not in the database, checkpoints of
    finished trials, adapters beyond a study's keep policy, and merged models that no study starts from. Registered
    adapters are never deleted, and running studies are skipped.
    """
    from sweeper.upkeep.gc import sweep  # imports optuna

    home = Home.current()
    with Database.open(home.database, create=False) as database, progress() as on_progress:
        swept = sweep(home, database, study=study, dry_run=dry_run, on_progress=on_progress)
    if as_json:
        found = {"leftovers": swept.leftovers, "left_alone": swept.left_alone}
        emit_json({"removed": not dry_run, "bytes": swept.bytes, **found})
        return
    rows = ((each.kind, size_text(each.bytes), each.path, each.why) for each in swept.leftovers)
    if swept.leftovers:
        console().print(table(("what", "size>", "where", "why"), rows))
    for note in swept.left_alone:
        say(f"skipped: {safe(note)}")
    count, verb = len(swept.leftovers), "would be deleted" if dry_run else "deleted"
    items = f"{count} item{'s' * (count != 1)}"
    say(f"{items}, {size_text(swept.bytes)}: {verb}" if count else "nothing to delete")


def backup(
    destination: Annotated[Path, typer.Argument(help="Folder to create; must not exist.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Back up this home, even while studies run: everything, or nothing if it fails midway.

    The copy is itself a home: `SWEEPER_HOME=DESTINATION sweeper resume STUDY` resumes a study from it. Damaged files
    are left out, and the exit code is then 1; `sweeper doctor STUDY` gives the details.
    """
    from sweeper.upkeep.backup import back_up

    with progress() as on_progress:
        done = back_up(Home.current(), destination, on_progress=on_progress)
    if as_json:
        emit_json(done)
    else:
        say(f"[bold green]{safe(done.folder)}[/]: the database and {done.files} files, {size_text(done.bytes)}")
        for line in done.left_out:
            say(f"[yellow]left out[/]: {safe(line)}")
        if done.dump is not None:
            say(f"restore the database with `pg_restore --dbname=URL {safe(done.dump)}`; with the files it is a home")
    if done.left_out:
        raise typer.Exit(1)


def migrate_storage(
    url: Annotated[
        str,
        typer.Argument(
            help="An empty database: 'postgresql+psycopg://USER:${PGPASSWORD}@HOST:PORT/DATABASE', in single quotes.",
            show_default=False,
        ),
    ],
    as_json: Json = False,
) -> None:
    """Move this home's studies to PostgreSQL.

    Every row is compared after it is copied, in one transaction. An interrupted migration can simply be run again. The
    SQLite file is kept under another name.
    """
    from sweeper.upkeep.migrate_storage import migrate

    home = Home.current()
    with progress() as on_progress:
        moved = migrate(home, PostgresUrl.parse(url), on_progress)
    if as_json:
        database, kept = str(moved.server), str(moved.kept)
        emit_json({"database": database, "studies": moved.studies, "rows": moved.rows, "kept": kept})
        return
    say(f"{moved.studies} studies ({moved.rows:,} rows, each compared) are now in {safe(moved.server)}")
    say(f"{safe(home.folder)} uses that database from now on; {safe(moved.kept)} is unchanged and no longer used")
