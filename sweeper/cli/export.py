"""``sweeper export``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sweeper.cli.home import AdapterName, opened_registry
from sweeper.cli.output import Json, emit_json, safe, say


class ExportFormat(StrEnum):
    """The formats of an export."""

    TRL = "trl"
    AXOLOTL = "axolotl"
    LLAMA_FACTORY = "llama-factory"
    ADAPTER = "adapter"
    MERGED = "merged"


def export(
    name: AdapterName,
    format: Annotated[
        ExportFormat,
        typer.Option(
            help="trl, axolotl or llama-factory: a recipe that trains the same adapter with that tool. "
            "adapter: the PEFT adapter with a model card. merged: base model and adapter merged into dense weights."
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
        from sweeper.export.writer import export as write  # imports torch for the formats that need it
        from sweeper.registry.provenance import export_source

        exported = write(export_source(home, database, found), format.value, out, force=force)
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
