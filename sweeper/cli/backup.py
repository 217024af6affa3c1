"""``sweeper backup``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sweeper.cli.output import emit_json, progress, safe, say
from sweeper.config.keep import size_text
from sweeper.paths import Home


def backup(
    destination: Annotated[Path, typer.Argument(help="Folder to make; must not exist.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Copy this home, while studies run, to a folder of its own: all of it, or nothing.

    The copy is a home: `SWEEPER_HOME=DESTINATION sweeper resume STUDY` goes on there. The exit code is 1 if something
    is left out because it is damaged; `sweeper doctor` says more of it.
    """
    from sweeper.upkeep.backup import back_up

    home = Home.current()
    with progress() as on_progress:
        done = back_up(home, destination, on_progress=on_progress)
    if as_json:
        emit_json(done)
    else:
        say(f"[bold green]{safe(done.folder)}[/]: the database and {done.files} files, {size_text(done.bytes)}")
        for line in done.left_out:
            say(f"[yellow]left out[/]: {safe(line)}")
        if done.dump is not None:
            say(f"restore the database with `pg_restore --dbname=URL {safe(done.dump)}`; the files make a home with it")
    if done.left_out:
        raise typer.Exit(1)
