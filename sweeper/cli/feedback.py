"""``sweeper adapters feedback``: what people thought of a version's answers, and as rows to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sweeper.cli.output import console, emit_json, safe, say, table, writing
from sweeper.errors import DataError
from sweeper.paths import Home
from sweeper.registry import Registry
from sweeper.registry.feedback import Kind, training_rows, write_rows
from sweeper.store import Database, Feedback

_SHOWN = 60
_THUMBS = {True: "up", False: "down", None: ""}


def feedback(
    name: Annotated[str, typer.Argument(help="Name of the adapter.", show_default=False)],
    version: Annotated[int | None, typer.Argument(min=1, help="Only this version.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write rows to train on to this .jsonl file.")] = None,
    kind: Annotated[
        Kind, typer.Option("--as", help="What rows: right answers, preference pairs, or answers called good or bad.")
    ] = "completions",
) -> None:
    """Show what people thought of an adapter's answers, or write it as rows to train on."""
    home = Home.current()
    with Database.open(home.database, create=False) as database:
        Registry(home, database).get(name, version)
        found = database.feedback.all(adapter=name, version=version)
    if out is not None:
        _write(found, kind, out)
    elif as_json:
        emit_json(found)
    elif not found:
        say("nobody has given feedback yet; the dashboard's playground takes it")
    else:
        rows = (
            (f"{f.at:%Y-%m-%d %H:%M}", f"v{f.version}", f.actor, _THUMBS[f.good], *map(_short, _texts(f)))
            for f in found
        )
        console().print(table(("given (UTC)", "", "by", "thumb", "prompt", "answer", "correction"), rows))


def _write(found: tuple[Feedback, ...], kind: Kind, out: Path) -> None:
    if out.suffix != ".jsonl":
        raise DataError(f"{out}: the file must end in .jsonl, by which sweeper reads it again")
    with writing(out):
        taken = out.exists()
    if taken:
        raise DataError(f"{out} is already there; name another file, or move it away")
    rows = training_rows(found, kind)
    if not rows:
        raise DataError(f"no feedback of {len(found)} makes a row of --as {kind}; {out} was not written")
    with writing(out):
        write_rows(rows, out)
    say(f"{len(rows):,} rows written to {safe(out)}")


def _texts(found: Feedback) -> tuple[str, str, str]:
    return found.prompt, found.answer, found.correction or ""


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "..."
