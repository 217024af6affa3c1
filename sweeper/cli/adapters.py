"""``sweeper adapters``: the registered versions and their stages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from sweeper.cli.feedback import feedback
from sweeper.cli.output import console, emit_json, safe, say, table
from sweeper.paths import Home
from sweeper.registry import AdapterVersion, Registry
from sweeper.store import Database, Stage

adapters = typer.Typer(no_args_is_help=True, help="List, show, promote, archive and verify adapters.")

adapters.command()(feedback)

_Name = Annotated[str, typer.Argument(help="Name of the adapter.", show_default=False)]
_Version = Annotated[int, typer.Argument(min=1, help="Its version.", show_default=False)]
_Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@adapters.command("list")
def list_(
    name: Annotated[str | None, typer.Argument(help="Only this adapter's versions.", show_default=False)] = None,
    as_json: _Json = False,
) -> None:
    """List the registered adapters, or the versions of one."""
    with _registry() as registry:
        versions = registry.all(name)
    if as_json:
        emit_json(versions)
        return
    if not versions:
        say("no adapters are registered yet; `sweeper run` registers a winner")
        return
    rows = (
        (v.name, v.version, v.stage, _headline(v), v.lineage.base_model, f"{v.created_at:%Y-%m-%d %H:%M}")
        for v in versions
    )
    console().print(table(("adapter", "version>", "stage", "score on test", "base model", "registered (UTC)"), rows))


@adapters.command()
def show(
    name: _Name,
    version: Annotated[int | None, typer.Argument(min=1, help="Its version; the newest if left out.")] = None,
    as_json: _Json = False,
) -> None:
    """Show a version with its lineage: study, trial, data, base model, hyperparameters and scores."""
    with _registry() as registry:
        found = registry.get(name, version)
        ancestors = registry.ancestors(found)
    if as_json:
        emit_json(found)
        return
    lineage = found.lineage
    say(f"[bold]{safe(found)}[/], {found.stage}, registered {found.created_at:%Y-%m-%d %H:%M} UTC")
    facts: dict[str, Any] = {
        "folder": found.folder,
        "sha256": found.sha256,
        "study": f"{lineage.study}, trial {lineage.trial}",
        "base model": f"{lineage.base_model} ({lineage.base_model_fingerprint[:16]})",
        "data": ", ".join(f"{split} {digest[:16]}" for split, digest in lineage.data_sha256.items()),
        **({"built on": ", ".join(ancestors)} if ancestors else {}),
        "seeds": ", ".join(f"{of} {seed}" for of, seed in lineage.seeds.items()),
        "packages": ", ".join(f"{package} {number}" for package, number in lineage.packages.items()),
    }
    facts |= {name: value for name, value in lineage.hyperparameters.items() if value is not None}
    console().print(table(("", ""), facts.items()))
    for split, scores in found.scores.items():
        rows = (
            (metric, _number(s["score"]), _span(s["low"], s["high"]), _span(s["diff_low"], s["diff_high"]))
            for metric, s in scores.items()
        )
        console().print(table((f"{split} metric", "score>", "95 % interval", "gain over base"), rows))


@adapters.command()
def promote(
    name: _Name,
    version: _Version,
    to: Annotated[Stage, typer.Option(help="Stage to move it to.")] = Stage.PRODUCTION,
) -> None:
    """Move a version to another stage; a new production version archives the former one."""
    with _registry() as registry:
        say(f"{safe(registry.move(name, version, to))} is now {to}")


@adapters.command()
def archive(name: _Name, version: _Version) -> None:
    """Take a version out of use; it can come back."""
    with _registry() as registry:
        say(f"{safe(registry.move(name, version, Stage.ARCHIVED))} is now archived")


@adapters.command()
def verify(name: _Name, version: _Version) -> None:
    """Check every file of a version against its checksum."""
    with _registry() as registry:
        say(f"{safe(registry.verify(name, version))} is as it was registered")


@contextmanager
def _registry() -> Iterator[Registry]:
    home = Home.current()
    with Database.open(home.database, create=False) as database:
        yield Registry(home, database)


def _headline(version: AdapterVersion) -> str:
    scores = version.scores.get("test", {})
    return next((f"{metric} {_number(score['score'])}" for metric, score in scores.items()), "")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _span(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
