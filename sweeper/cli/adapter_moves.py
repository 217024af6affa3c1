"""``sweeper adapters``: what changes a version, its stage, its aliases, tags and note."""

from __future__ import annotations

from typing import Annotated

import typer

from sweeper.cli.adapter_parts import Name, Version, opened
from sweeper.cli.output import progress, safe, say
from sweeper.errors import UserError
from sweeper.registry import Stage
from sweeper.registry.rollback import was_forced
from sweeper.registry.stages import check_move

_Reason = Annotated[str, typer.Option(help="Why, for the record.")]


def promote(
    name: Name,
    version: Version,
    to: Annotated[Stage, typer.Option(help="Stage to move it to.")] = Stage.PRODUCTION,
    force: Annotated[bool, typer.Option("--force", help="Overrule the gate; the record is marked.")] = False,
    reason: _Reason = "",
    no_scoring: Annotated[
        bool, typer.Option("--no-scoring", help="Refuse, instead of scoring a model that the gate needs scored.")
    ] = False,
) -> None:
    """Move a version to another stage; into production only through the gate, which archives the former one.

    The gate compares it with the version in production on the test examples of its own study: the whole interval of the
    paired difference must lie above evaluation.promotion_margin. Where none is there it compares with the last one that
    was, and with the bare base model where none ever was. What was never scored on them is scored first.
    """
    with opened() as (home, database, registry):
        if to is not Stage.PRODUCTION:
            say(f"{safe(registry.move(name, version, to, force=force, reason=reason))} is now {to}")
            return
        found = registry.get(name, version)
        check_move(str(found), found.stage, to)
        if not (no_scoring or force) and registry.judge(name, version).unscored:
            from sweeper.registry.rescoring import (
                score_missing,  # imports torch, which a promotion does not need otherwise
            )

            with progress() as show:
                for each in score_missing(home, database, found, registry.opponent(found), show):
                    say(f"scored {safe(each)}")
        judgement = registry.judge(name, version)
        moved = registry.move(name, version, to, force=force, reason=reason)
        say(safe(judgement))
        say(f"{safe(moved)} is now {to}{'' if judgement.passed else ', [bold]forced[/] against the gate'}")


def archive(name: Name, version: Version, reason: _Reason = "") -> None:
    """Take a version out of use; it can come back."""
    with opened() as (_, _, registry):
        say(f"{safe(registry.move(name, version, Stage.ARCHIVED, reason=reason))} is now archived")


def rollback(
    name: Name,
    version: Annotated[
        int | None, typer.Argument(min=1, help="An archived version that was in production; the last if left out.")
    ] = None,
    reason: _Reason = "",
) -> None:
    """Bring back at once the version that was in production before: the emergency exit, past the gate.

    Where that one had been forced in against the gate, the rollback is marked as forced too.
    """
    with opened() as (_, _, registry):
        former = registry.production(name)
        found = registry.roll_back(name, version, reason=reason)
        forced = was_forced(registry.history(name), found.version)
        say(
            f"{safe(found)} is back in production{f' instead of {safe(former)}' if former else ''}"
            f"{', though it had been [bold]forced[/] in against the gate' if forced else ''}"
        )


def alias(
    name: Name,
    version: Version,
    alias: Annotated[str, typer.Argument(help="A name such as champion.", show_default=False)],
    remove: Annotated[bool, typer.Option("--remove", help="Take the alias away.")] = False,
) -> None:
    """Give a version a name that moves: `adapter:NAME@ALIAS` in a study file means whichever has it then."""
    with opened() as (_, _, registry):
        if remove:
            say(f"{safe(alias)} does not mean {safe(registry.remove_alias(name, version, alias))} any more")
        else:
            say(f"{safe(alias)} means {safe(registry.set_alias(name, version, alias))} now")


def tag(
    name: Name,
    version: Version,
    tags: Annotated[list[str] | None, typer.Argument(help="Tags to add.", show_default=False)] = None,
    remove: Annotated[list[str] | None, typer.Option("--remove", help="A tag to take away; repeatable.")] = None,
) -> None:
    """Add tags to a version, or take some away."""
    if not tags and not remove:
        raise UserError("name tags to add, or some to take away with --remove")
    with opened() as (_, _, registry):
        kept = [each for each in registry.get(name, version).tags if each not in (remove or [])]
        found = registry.set_tags(name, version, [*kept, *(tags or [])])
        say(f"{safe(found)} is tagged {safe(', '.join(found.tags)) or 'with nothing'}")


def annotate(
    name: Name,
    version: Version,
    note: Annotated[str, typer.Argument(help="What to say of it; empty takes the note away.", show_default=False)],
) -> None:
    """Write a note on a version, in place of the one it has."""
    with opened() as (_, _, registry):
        found = registry.annotate(name, version, note)
        say(f"{safe(found)} {'has a new note' if found.note else 'has no note any more'}")
