"""``sweeper export``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sweeper.cli.output import emit_json, safe, say
from sweeper.paths import Home
from sweeper.registry import Registry
from sweeper.store import Database


class ExportFormat(StrEnum):
    """What an export is for."""

    TRL = "trl"
    AXOLOTL = "axolotl"
    LLAMA_FACTORY = "llama-factory"
    ADAPTER = "adapter"
    MERGED = "merged"


def export(
    name: Annotated[str, typer.Argument(help="Name of the adapter; `sweeper adapters list` shows them.")],
    format: Annotated[
        ExportFormat,
        typer.Option(
            help="trl, axolotl, llama-factory: a recipe that trains the winner again with that tool. "
            "adapter: the PEFT adapter with a model card. merged: dense weights, base and adapter in one."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write; must not exist, or be empty.")],
    version: Annotated[int | None, typer.Option(min=1, help="Version; the newest if left out.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export in that folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write the winner for other tools, and verify what was written by loading it."""
    home = Home.current()
    with Database.open(home.database, create=False) as database:
        registry = Registry(home, database)
        found = registry.get(name, version)
        registry.verify(found.name, found.version)
        from sweeper.export.writer import export as write  # imports torch for the formats that need it
        from sweeper.registry.provenance import export_source

        exported = write(export_source(home, database, found), format.value, out, force=force)
    if as_json:
        emit_json(
            {
                "adapter": found.name,
                "version": found.version,
                "format": exported.format,
                "folder": exported.folder,
                "files": [path.relative_to(exported.folder) for path in exported.paths],
                "notes": exported.notes,
            }
        )
        return
    say(f"[bold green]{safe(found)}[/] written as {exported.format} to {safe(exported.folder)}, and verified")
    for path in exported.paths:
        say(f"  {safe(path.relative_to(exported.folder))}")
    for note in exported.notes:
        say(f"note: {safe(note)}")
