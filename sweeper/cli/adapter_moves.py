"""Commands of ``sweeper adapters`` that change a version: its stage, aliases, tags and note."""

from __future__ import annotations

from typing import Annotated

import typer

from sweeper.cli.home import AdapterName, Version, opened_registry
from sweeper.cli.output import progress, safe, say
from sweeper.errors import UserError
from sweeper.paths import Home
from sweeper.registry import AdapterVersion, Stage
from sweeper.registry.stages import check_move, was_forced
from sweeper.store import Database

_Reason = Annotated[str, typer.Option(help="Reason, for the history.")]


def promote(
    name: AdapterName,
    version: Version,
    to: Annotated[Stage, typer.Option(help="Stage to move it to.")] = Stage.PRODUCTION,
    force: Annotated[bool, typer.Option("--force", help="Overrule the gate; the history marks it.")] = False,
    reason: _Reason = "",
    no_scoring: Annotated[
        bool, typer.Option("--no-scoring", help="Refuse if a score is missing, instead of computing it.")
    ] = False,
) -> None:
    """Move a version to another stage; the way into production leads through the gate.

    On the test examples of the version's own study, the whole 95 % interval of its paired gain over the version in
    production must lie above `evaluation.promotion_margin`. If production is empty, the gate compares with the last
    version that was there, and with the bare base model if there never was one. Missing scores are computed first. The
    version that was in production is archived.
    """
    with opened_registry() as (home, database, registry):
        if to is not Stage.PRODUCTION:
            say(f"{safe(registry.move(name, version, to, force=force, reason=reason))} is now {to}")
            return
        found = registry.get(name, version)
        check_move(str(found), found.stage, to)
        if not (no_scoring or force) and registry.judge(name, version).unscored:
            scored(home, database, found, registry.opponent(found))
        judgement = registry.judge(name, version)
        moved = registry.move(name, version, to, force=force, reason=reason)
        say(safe(judgement))
        say(f"{safe(moved)} is now {to}{'' if judgement.passed else ', [bold]forced[/] against the gate'}")


def scored(home: Home, database: Database, found: AdapterVersion, opponent: AdapterVersion | None) -> None:
    """Compute the scores that the gate needs and lacks."""
    from sweeper.registry.rescoring import score_missing  # imports torch, which stored scores do not need

    with progress() as on_progress:
        for each in score_missing(home, database, found, opponent, on_progress):
            say(f"scored {safe(each)}", stderr=True)


def archive(name: AdapterName, version: Version, reason: _Reason = "") -> None:
    """Archive a version; it can be promoted again."""
    with opened_registry() as (_, _, registry):
        say(f"{safe(registry.move(name, version, Stage.ARCHIVED, reason=reason))} is now archived")


def rollback(
    name: AdapterName,
    version: Annotated[
        int | None, typer.Argument(min=1, help="An archived version that was in production; the last one by default.")
    ] = None,
    reason: _Reason = "",
) -> None:
    """Bring a former production version back at once, past the gate.

    If that version had been forced past the gate, the rollback is marked as forced too.
    """
    with opened_registry() as (_, _, registry):
        former = registry.production(name)
        found = registry.roll_back(name, version, reason=reason)
        replacing = f", replacing {safe(former)}" if former else ""
        forced = was_forced(registry.history(name), found.version)
        warning = "; it had been [bold]forced[/] past the gate" if forced else ""
        say(f"{safe(found)} is back in production{replacing}{warning}")


def alias(
    name: AdapterName,
    version: Version,
    alias: Annotated[str, typer.Argument(help="A name such as champion.", show_default=False)],
    remove: Annotated[bool, typer.Option("--remove", help="Remove the alias.")] = False,
) -> None:
    """Point an alias at a version: `model: adapter:NAME@ALIAS` in a study file then means that version."""
    with opened_registry() as (_, _, registry):
        if remove:
            say(f"{safe(alias)} no longer points to {safe(registry.remove_alias(name, version, alias))}")
        else:
            say(f"{safe(alias)} now points to {safe(registry.set_alias(name, version, alias))}")


def tag(
    name: AdapterName,
    version: Version,
    tags: Annotated[list[str] | None, typer.Argument(help="Tags to add.", show_default=False)] = None,
    remove: Annotated[list[str] | None, typer.Option("--remove", help="Tag to remove; repeatable.")] = None,
) -> None:
    """Add tags to a version, or remove some."""
    if not tags and not remove:
        raise UserError("name tags to add, or tags to remove with --remove")
    with opened_registry() as (_, _, registry):
        kept = [each for each in registry.get(name, version).tags if each not in (remove or [])]
        found = registry.set_tags(name, version, [*kept, *(tags or [])])
        say(f"tags of {safe(found)}: {safe(', '.join(found.tags)) or 'none'}")


def annotate(
    name: AdapterName,
    version: Version,
    note: Annotated[str, typer.Argument(help="The note; an empty one removes it.", show_default=False)],
) -> None:
    """Write a note on a version, replacing the one it has."""
    with opened_registry() as (_, _, registry):
        found = registry.annotate(name, version, note)
        say(f"{safe(found)}: note {'saved' if found.note else 'removed'}")
