"""``sweeper adapters``: the registered versions, side by side, and their history."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sweeper.cli.adapter_moves import alias, annotate, archive, promote, rollback, scored, tag
from sweeper.cli.home import AdapterName, Version, opened_registry
from sweeper.cli.output import Json, console, emit_json, number, safe, say, span, table, writing
from sweeper.errors import DataError
from sweeper.registry import AdapterVersion
from sweeper.registry.changes import ScoreChange
from sweeper.registry.changes import changes as changes_between
from sweeper.registry.feedback import RowKind, training_rows, write_rows
from sweeper.registry.gate import differences, judge
from sweeper.store import Feedback

adapters = typer.Typer(no_args_is_help=True, help="Compare, promote, roll back and annotate registered adapters.")

_LONGEST_TEXT = 60
_THUMBS = {True: "up", False: "down", None: ""}


@adapters.command("list")
def list_(
    name: Annotated[str | None, typer.Argument(help="Only this adapter's versions.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """List the registered adapters, or the versions of one."""
    with opened_registry() as (_, _, registry):
        versions = registry.all(name)
    if as_json:
        emit_json(versions)
        return
    if not versions:
        say("no adapters are registered yet; `sweeper run` registers the winner of a study")
        return
    columns = ("adapter", "version>", "stage", "aliases and tags", "score on test", "base model", "registered (UTC)")
    console().print(table(columns, map(_version_row, versions)))


@adapters.command()
def show(
    name: AdapterName,
    version: Annotated[int | None, typer.Argument(min=1, help="Version number; the newest by default.")] = None,
    as_json: Json = False,
) -> None:
    """Show a version and its lineage: study, trial, data, base model, hyperparameters and scores."""
    with opened_registry() as (_, _, registry):
        found = registry.get(name, version)
        ancestors = registry.ancestors(found)
    if as_json:
        emit_json(found)
        return
    lineage = found.lineage
    say(f"[bold]{safe(found)}[/], {found.stage}, registered {found.created_at:%Y-%m-%d %H:%M} UTC")
    facts: dict[str, Any] = {
        "aliases": ", ".join(found.aliases),
        "tags": ", ".join(found.tags),
        "note": found.note,
        "folder": found.folder,
        "sha256": found.sha256,
        "study": f"{lineage.study}, trial {lineage.trial}",
        "started from": None if lineage.initial_trial is None else f"the weights of trial {lineage.initial_trial}",
        "base model": f"{lineage.base_model} ({lineage.base_model_fingerprint[:16]})",
        "data": ", ".join(f"{split} {digest[:16]}" for split, digest in lineage.data_sha256.items()),
        "built on": ", ".join(ancestors),
        "seeds": ", ".join(f"{of} {seed}" for of, seed in lineage.seeds.items()),
        "packages": ", ".join(f"{package} {number}" for package, number in lineage.packages.items()),
    }
    facts = {name: fact for name, fact in facts.items() if fact}
    facts |= {name: value for name, value in lineage.hyperparameters.items() if value is not None}
    console().print(table(("", ""), facts.items()))
    for split, scores in found.scores.items():
        rows = (
            (metric, number(s["score"], ".3f"), span(s["low"], s["high"]), span(s["diff_low"], s["diff_high"]))
            for metric, s in scores.items()
        )
        console().print(table((f"{split} metric", "score>", "95 % interval", "gain over base"), rows))


@adapters.command()
def verify(name: AdapterName, version: Version) -> None:
    """Verify the checksums of a version's files."""
    with opened_registry() as (_, _, registry):
        say(f"{safe(registry.verify(name, version))}: all files are as registered")


@adapters.command()
def compare(
    name: AdapterName,
    version: Version,
    other: Annotated[
        int | None,
        typer.Option("--with", min=1, help="Version to compare with; by default the one the gate would compare with."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare a version with another one, as the gate to production does.

    The gate compares with the version in production, else with the last one that was there, else with the base model.
    The comparison is paired, on the test examples of the version's own study. Missing scores are computed and kept for
    the gate.
    """
    with opened_registry() as (home, database, registry):
        found = registry.get(name, version)
        opponent = registry.opponent(found) if other is None else registry.get(name, other)
        if opponent is not None and opponent.version == found.version:
            opponent = None
        if judge(database, found, opponent).unscored:
            scored(home, database, found, opponent)
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


@adapters.command()
def diff(name: AdapterName, old: Version, new: Version, as_json: Json = False) -> None:
    """Show what changed between two versions: hyperparameters, base model, data, packages, study file, scores."""
    with opened_registry() as (_, database, registry):
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
        columns = ("score", found.old + ">", found.new + ">", "difference", "verdict")
        console().print(table(columns, map(_change_row, found.scores)))
    for line in found.study_file:
        say(safe(line))


@adapters.command()
def history(name: AdapterName, as_json: Json = False) -> None:
    """Show who changed an adapter, how and when, latest first; forced promotions are marked."""
    with opened_registry() as (_, _, registry):
        registry.get(name)
        actions = registry.history(name)
    if as_json:
        emit_json(actions)
        return
    rows = (
        (f"{of.at:%Y-%m-%d %H:%M:%S}", of.actor, of.kind, "FORCED" if of.forced else "", of.message) for of in actions
    )
    console().print(table(("at (UTC)", "by", "action", "", "details"), rows))


@adapters.command()
def feedback(
    name: AdapterName,
    version: Annotated[int | None, typer.Argument(min=1, help="Only this version.", show_default=False)] = None,
    as_json: Json = False,
    out: Annotated[Path | None, typer.Option(help="Write training rows to this .jsonl file.")] = None,
    kind: Annotated[
        RowKind, typer.Option("--as", help="Rows to write: good answers, preference pairs, or answers with a label.")
    ] = "completions",
) -> None:
    """Show the feedback on an adapter's answers, or write it as training rows."""
    with opened_registry() as (_, database, registry):
        registry.get(name, version)
        found = database.feedback.all(adapter=name, version=version)
    if out is not None:
        _write(found, kind, out)
    elif as_json:
        emit_json(found)
    elif not found:
        say("no feedback yet; it is given in the dashboard's playground")
    else:
        rows = (
            (f"{f.at:%Y-%m-%d %H:%M}", f"v{f.version}", f.actor, _THUMBS[f.good], *map(_short, _texts(f)))
            for f in found
        )
        console().print(table(("given (UTC)", "", "by", "thumb", "prompt", "answer", "correction"), rows))


def _write(found: tuple[Feedback, ...], kind: RowKind, out: Path) -> None:
    if out.suffix != ".jsonl":
        raise DataError(f"{out}: the name must end in .jsonl, so that a study can read the file")
    with writing(out):
        taken = out.exists()
    if taken:
        raise DataError(f"{out} already exists; choose another file or move it away")
    rows = training_rows(found, kind)
    if not rows:
        raise DataError(f"none of {len(found)} feedback entries makes a row of --as {kind}; {out} was not written")
    with writing(out):
        write_rows(rows, out)
    say(f"{len(rows):,} rows written to {safe(out)}")


def _version_row(version: AdapterVersion) -> tuple[object, ...]:
    first = next(iter(version.scores.get("test", {}).items()), None)
    return (
        version.name,
        version.version,
        version.stage,
        ", ".join((*version.aliases, *version.tags)),
        "" if first is None else f"{first[0]} {number(first[1]['score'], '.3f')}",
        version.lineage.base_model,
        f"{version.created_at:%Y-%m-%d %H:%M}",
    )


def _change_row(of: ScoreChange) -> tuple[str | None, ...]:
    gap = "" if of.gap is None else f"{of.gap:+.3f} ({span(of.low, of.high)})"
    return f"{of.split} {of.metric}", number(of.old, ".3f"), number(of.new, ".3f"), gap, of.verdict


def _texts(found: Feedback) -> tuple[str, str, str]:
    return found.prompt, found.answer, found.correction or ""


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_TEXT else line[: _LONGEST_TEXT - 3] + "..."


for _command in (promote, archive, rollback, alias, tag, annotate):
    adapters.command()(_command)
