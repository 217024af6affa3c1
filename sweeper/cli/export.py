"""``sweeper export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sweeper.cli.home import AdapterName, opened_registry
from sweeper.cli.output import Json, emit_json, safe, say
from sweeper.export import FORMATS
from sweeper.export import export as write


def _known(format: str) -> str:
    if format not in FORMATS:
        raise typer.BadParameter(f"{format!r} is not one of {', '.join(FORMATS)}")
    return format


def export(
    name: AdapterName,
    format: Annotated[
        str,
        typer.Option(
            metavar=f"[{'|'.join(FORMATS)}]",
            callback=_known,
            autocompletion=lambda: list(FORMATS),
            help=" ".join(f"{name}: {each.TITLE}." for name, each in FORMATS.items()),
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write; must be new or empty.")],
    version: Annotated[int | None, typer.Option(min=1, help="Version number; the newest by default.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export in that folder.")] = False,
    as_json: Json = False,
) -> None:
    """Export an adapter for other tools, and verify the export by loading it."""
    with opened_registry() as (home, database, registry):
        found = registry.get(name, version)
        registry.verify(found.name, found.version)
        from sweeper.registry.provenance import export_source

        exported = write(export_source(home, database, found), format, out, force=force)
    files = [path.relative_to(exported.folder) for path in exported.paths]
    if as_json:
        written = {"folder": exported.folder, "files": files, "notes": exported.notes}
        emit_json({"adapter": found.name, "version": found.version, "format": exported.format, **written})
        return
    say(f"[bold green]{safe(found)}[/] exported as {exported.format} to {safe(exported.folder)}, and verified")
    for path in files:
        say(f"  {safe(path)}")
    for note in exported.notes:
        say(f"note: {safe(note)}")
