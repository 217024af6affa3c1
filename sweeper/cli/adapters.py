"""``sweeper adapters``: the registered versions and their stages."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sweeper.cli.adapter_compare import compare, diff, history
from sweeper.cli.adapter_moves import alias, annotate, archive, promote, rollback, tag
from sweeper.cli.adapter_parts import Json, Name, Version, number, opened, span
from sweeper.cli.feedback import feedback
from sweeper.cli.output import console, emit_json, safe, say, table
from sweeper.registry import AdapterVersion

adapters = typer.Typer(no_args_is_help=True, help="Compare, promote, roll back and describe the registered adapters.")

_LIST = ("adapter", "version>", "stage", "aliases and tags", "score on test", "base model")


@adapters.command("list")
def list_(
    name: Annotated[str | None, typer.Argument(help="Only this adapter's versions.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """List the registered adapters, or the versions of one."""
    with opened() as (_, _, registry):
        versions = registry.all(name)
    if as_json:
        emit_json(versions)
        return
    if not versions:
        say("no adapters are registered yet; `sweeper run` registers a winner")
        return
    rows = (
        (
            v.name,
            v.version,
            v.stage,
            ", ".join((*v.aliases, *v.tags)),
            _headline(v),
            v.lineage.base_model,
            f"{v.created_at:%Y-%m-%d %H:%M}",
        )
        for v in versions
    )
    console().print(table((*_LIST, "registered (UTC)"), rows))


@adapters.command()
def show(
    name: Name,
    version: Annotated[int | None, typer.Argument(min=1, help="Its version; the newest if left out.")] = None,
    as_json: Json = False,
) -> None:
    """Show a version with its lineage: study, trial, data, base model, hyperparameters and scores."""
    with opened() as (_, _, registry):
        found = registry.get(name, version)
        ancestors = registry.ancestors(found)
    if as_json:
        emit_json(found)
        return
    lineage = found.lineage
    say(f"[bold]{safe(found)}[/], {found.stage}, registered {found.created_at:%Y-%m-%d %H:%M} UTC")
    facts: dict[str, Any] = {
        **({"aliases": ", ".join(found.aliases)} if found.aliases else {}),
        **({"tags": ", ".join(found.tags)} if found.tags else {}),
        **({"note": found.note} if found.note else {}),
        "folder": found.folder,
        "sha256": found.sha256,
        "study": f"{lineage.study}, trial {lineage.trial}",
        **({} if lineage.initial_trial is None else {"began from": f"the weights of trial {lineage.initial_trial}"}),
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
            (metric, number(s["score"]), span(s["low"], s["high"]), span(s["diff_low"], s["diff_high"]))
            for metric, s in scores.items()
        )
        console().print(table((f"{split} metric", "score>", "95 % interval", "gain over base"), rows))


@adapters.command()
def verify(name: Name, version: Version) -> None:
    """Check every file of a version against its checksum."""
    with opened() as (_, _, registry):
        say(f"{safe(registry.verify(name, version))} is as it was registered")


def _headline(version: AdapterVersion) -> str:
    scores = version.scores.get("test", {})
    return next((f"{metric} {number(score['score'])}" for metric, score in scores.items()), "")


for _command in (promote, archive, rollback, compare, diff, history, alias, tag, annotate, feedback):
    adapters.command()(_command)
