"""``sweeper gc``."""

from __future__ import annotations

from typing import Annotated

import typer

from sweeper.cli.output import console, emit_json, progress, safe, say, table
from sweeper.config.keep import size_text
from sweeper.paths import Home
from sweeper.store import Database


def gc(
    study: Annotated[str | None, typer.Argument(help="Only this study.", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go; remove nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Remove from disk what nothing needs any more, and say why of each.

    That is: temporary files of processes that are gone, folders of studies that the database does not know, what ended
    trials were stopped with, adapters that a study's keep policy does not keep, and merged models that no study begins
    from. Nothing registered goes, and studies that are being run are left alone.
    """
    from sweeper.upkeep.gc import sweep  # imports optuna

    home = Home.current()
    with Database.open(home.database, create=False) as database, progress() as on_progress:
        swept = sweep(home, database, study=study, dry_run=dry_run, on_progress=on_progress)
    if as_json:
        emit_json(
            {
                "removed": not dry_run,
                "bytes": swept.bytes,
                "leftovers": swept.leftovers,
                "left_alone": swept.left_alone,
            }
        )
        return
    rows = ((each.kind, size_text(each.bytes), each.path, each.why) for each in swept.leftovers)
    if swept.leftovers:
        console().print(table(("what", "size>", "where", "why"), rows))
    for note in swept.left_alone:
        say(f"left alone: {safe(note)}")
    verb = "would be removed" if dry_run else "removed"
    say(f"{len(swept.leftovers)} leftover(s), {size_text(swept.bytes)}: {verb}" if swept.leftovers else "nothing to do")
