"""``sweeper adapters``: versions beside each other, and what was done to them."""

from __future__ import annotations

from typing import Annotated

import typer

from sweeper.cli.adapter_parts import Json, Name, Version, number, opened, span
from sweeper.cli.output import console, emit_json, progress, safe, say, table
from sweeper.registry.changes import ScoreChange
from sweeper.registry.changes import changes as changes_between
from sweeper.registry.gate import differences, judge


def compare(
    name: Name,
    version: Version,
    other: Annotated[
        int | None,
        typer.Option(
            "--with", min=1, help="Version to compare with; the one that the gate compares with, if left out."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare a version with another one, as the gate does, and score what was not scored yet.

    The gate compares with the version in production, else with the last one that was there, else with the base model.
    Both are compared in pairs on the test examples of the version's own study. A version of another study is loaded and
    scored on them, which is kept, so that the gate finds it afterwards.
    """
    with opened() as (home, database, registry):
        found = registry.get(name, version)
        opponent = registry.opponent(found) if other is None else registry.get(name, other)
        if opponent is not None and opponent.version == found.version:
            opponent = None
        if judge(database, found, opponent).unscored:
            from sweeper.registry.rescoring import score_missing  # imports torch, which stored scores do not need

            with progress() as show:
                score_missing(home, database, found, opponent, show)
        judgement = registry.judge(name, version) if other is None else judge(database, found, opponent)
        paired = differences(database, found, opponent)
    if as_json:
        emit_json({"judgement": judgement, "passed": judgement.passed, "differences": paired})
        return
    say(safe(judgement))
    rows = (
        (metric, f"{of.value:+.3f}", span(of.interval.low, of.interval.high), of.verdict)
        for metric, of in paired.items()
    )
    console().print(table(("metric", "difference>", "95 % interval", "verdict"), rows))


def diff(name: Name, old: Version, new: Version, as_json: Json = False) -> None:
    """Show what changed from one version to another: hyperparameters, base, data, packages, study file, scores."""
    with opened() as (_, database, registry):
        found = changes_between(database, registry.get(name, old), registry.get(name, new))
    if as_json:
        emit_json(found)
        return
    if found.changes:
        rows = ((f"{of.part}: {of.name}", of.old, of.new) for of in found.changes)
        console().print(table(("what", found.old, found.new), rows))
    else:
        say(f"{safe(found.old)} and {safe(found.new)} come from the same trial")
    if found.scores:
        console().print(
            table(("score", found.old + ">", found.new + ">", "difference", "verdict"), map(_row, found.scores))
        )
    for line in found.study_file:
        say(safe(line))


def history(name: Name, as_json: Json = False) -> None:
    """Show who did what to an adapter and when, the latest first; what overruled the gate is marked."""
    with opened() as (_, _, registry):
        registry.get(name)
        actions = registry.history(name)
    if as_json:
        emit_json(actions)
        return
    rows = (
        (f"{of.at:%Y-%m-%d %H:%M:%S}", of.actor, of.kind, "FORCED" if of.forced else "", of.message) for of in actions
    )
    console().print(table(("at (UTC)", "who", "what", "", "in words"), rows))


def _row(of: ScoreChange) -> tuple[str, str, str, str, str | None]:
    gap = "" if of.gap is None else f"{of.gap:+.3f} ({span(of.low, of.high)})"
    return f"{of.split} {of.metric}", number(of.old), number(of.new), gap, of.verdict
