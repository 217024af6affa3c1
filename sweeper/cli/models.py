"""``sweeper models``: the catalogue of base models, and the copies on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sweeper.cli.output import Json, console, emit_json, progress, safe, say, table
from sweeper.config.model import ModelConfig
from sweeper.errors import ModelNotFoundError
from sweeper.models import cache, hub
from sweeper.models.catalogue import CatalogueEntry, catalogue
from sweeper.models.resolve import resolve

models = typer.Typer(help="List, download and remove base models.", no_args_is_help=True)


@models.command("list")
def list_models(as_json: Json = False) -> None:
    """List the models in sweeper's catalogue, and where each is on this machine."""
    held = {model.name: model for model in cache.installed()}
    found = [_described(entry, held.get(entry.name)) for entry in catalogue().values()]
    if as_json:
        emit_json(found)
        return
    rows = [
        (row["name"], f"{row['parameters'] / 1e9:.2f}B", row["license"], row["hub"], row["here"] or "-")
        for row in found
    ]
    console().print(table(("name", "parameters>", "licence", "Hub name", "here"), rows))
    say("A study can also name any other model of the Hub (owner/name) or a local folder (./path).")


@models.command()
def pull(
    name: Annotated[
        str, typer.Argument(help="A name from `sweeper models list`, or a Hub name (owner/name).", show_default=False)
    ],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None,
) -> None:
    """Download a model."""
    with progress() as on_progress:
        found = resolve(ModelConfig(name=name, revision=revision), Path.cwd(), fetch=True, on_progress=on_progress)
    say(f"{safe(name)} is in {safe(found.path)}")


@models.command()
def remove(
    name: Annotated[
        str, typer.Argument(help="Name of the model, as `sweeper models list` shows it.", show_default=False)
    ],
) -> None:
    """Delete a model from sweeper's cache; the Hub's own cache is not touched."""
    model = cache.remove(name)
    say(f"{safe(model.name)} removed, {model.bytes / 1e6:,.0f} MB freed")


def _described(entry: CatalogueEntry, held: cache.InstalledModel | None) -> dict[str, Any]:
    place = held.path if held is not None else _in_hub_cache(entry.hub)
    found = {name: getattr(entry, name) for name in ("name", "hub", "parameters", "license", "gated")}
    return {**found, "here": place and str(place), "bytes": held.bytes if held is not None else None}


def _in_hub_cache(repo: str) -> Path | None:
    try:
        return hub.cached(repo, None)
    except ModelNotFoundError:
        return None
