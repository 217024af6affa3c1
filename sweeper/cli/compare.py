"""``sweeper compare``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from sweeper.cli.home import opened_database
from sweeper.cli.output import Json, console, emit_json, safe, say, span, table
from sweeper.evaluation.compare.render import write_report
from sweeper.evaluation.compare.report import comparison_report, read_curves
from sweeper.evaluation.compare.side_by_side import ComparedFact, SideBySide, side_by_side
from sweeper.evaluation.compare.subjects import find_subjects
from sweeper.evaluation.compare.summary import CORRECTION, Conclusion, conclude


def compare(
    subjects: Annotated[
        list[str],
        typer.Argument(
            help="Two to eight of these: a trial as STUDY:NUMBER, a registered version as NAME@VERSION, a bare base "
            "model as STUDY:base.",
            show_default=False,
        ),
    ],
    reference: Annotated[
        str | None, typer.Option(help="Subject to compare the others with; the first by default.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="Metric that decides; by default that of the reference's study.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write a report to this .md or .html file.")] = None,
    as_json: Json = False,
) -> None:
    """Compare trials, adapters and base models on the same examples.

    Differences are paired, with 95 % intervals and corrected p-values, and summed up in a verdict.
    """
    with opened_database() as database:
        found = side_by_side(find_subjects(database, subjects), reference=reference, metric=metric)
        if out is not None:
            write_report(comparison_report(found, read_curves(database, found)), out)
    conclusion = conclude(found)
    differing = [row for row in (*found.origins, *found.parameters) if row.differs]
    if as_json:
        emit_json(_json(found, conclusion, differing))
        return
    say(f"[bold]{safe(conclusion.headline)}[/]")
    for sentence in conclusion.sentences:
        say(f"  {safe(sentence)}")
    if found.metrics:
        against = f"minus {found.reference}>"
        columns = ("metric", "subject", "score>", "95 % interval", against, "95 % interval", "corrected p>", "")
        console().print(table(columns, _score_rows(found)))
        say(f"[dim]{safe(CORRECTION)}[/]")
    keys = [subject.key for subject in found.subjects]
    rows = ((row.name, *(_shown(row.values.get(key)) for key in keys)) for row in (*differing, *found.costs))
    console().print(table(("what differs", *keys), rows))
    if out is not None:
        say(f"report written to {safe(out)}")


def _json(found: SideBySide, conclusion: Conclusion, differing: Iterable[ComparedFact]) -> dict[str, Any]:
    """Return a comparison as plain data, without the texts of the examples."""
    same = ("reference", "metric", "scores", "unpaired", "examples")
    return {
        "subjects": [{"key": subject.key, "what": subject.words} for subject in found.subjects],
        "headline": conclusion.headline,
        "sentences": conclusion.sentences,
        "against_reference": found.against,
        "differs": {row.name: row.values for row in differing},
        "costs": {row.name: row.values for row in found.costs},
        **{name: getattr(found, name) for name in same},
    }


def _score_rows(found: SideBySide) -> Iterator[tuple[str, ...]]:
    for metric in found.metrics:
        for key, score in found.scores[metric].items():
            paired = ("", "", "", "reference" if key == found.reference else "not paired")
            if (one := found.against[metric].get(key)) is not None:
                gap, bounds = one.difference, one.difference.interval
                signed = span(bounds.low, bounds.high, "+.3f")
                paired = (f"{gap.value:+.3f}", signed, f"{one.corrected_p:.3f}", one.verdict)
            yield (metric, key, f"{score.score:.3f}", span(score.low, score.high), *paired)


def _shown(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value
