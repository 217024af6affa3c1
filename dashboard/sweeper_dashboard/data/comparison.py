"""Trials, registered versions and base models side by side."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import pandas as pd

from sweeper.config.evaluation import UNBOUNDED, direction
from sweeper.database_url import Address
from sweeper.evaluation.compare.render import html, markdown
from sweeper.evaluation.compare.report import comparison_report, differing_examples, read_curves
from sweeper.evaluation.compare.side_by_side import ComparedFact, SideBySide, side_by_side
from sweeper.evaluation.compare.subjects import FEWEST, find_subjects
from sweeper.evaluation.compare.summary import CORRECTION, Conclusion, conclude
from sweeper.evaluation.compare.text_diff import LEGEND, marked_html, plain_html
from sweeper.redact import clean
from sweeper.store import Database
from sweeper_dashboard.data import frames, home
from sweeper_dashboard.data.snapshots import snapshot

__all__ = ["CORRECTION", "FEWEST", "LEGEND", "Conclusion", "SideBySide", "conclude", "marked_html", "plain_html"]

BEST_OF_EACH = 20
"""Trials of a study that are listed; any other can be typed."""


def choices() -> list[str]:
    """Return the names to pick from: registered versions, and each study's base models, scored and best trials."""
    with home.database() as database:
        versions = [f"{record.name}@{record.version}" for record in database.adapters.all()]
        records = sorted(database.studies.all(), key=lambda record: record.started_at, reverse=True)
        found = [key for record in records for key in _of_study(database, record.name)]
    return [*versions, *found]


def _of_study(database: Database, name: str) -> list[str]:
    of = snapshot(database, database.studies.get(name))
    evaluated = database.evaluations.all(name)
    scored = [e.number for e in evaluated if e.number is not None]
    done = of.table[of.table["value"].notna()].sort_values("value", ascending=of.direction == "minimize")
    numbers = dict.fromkeys([*scored, *(int(number) for number in done["trial"].head(BEST_OF_EACH))])
    bases = dict.fromkeys(e.base for e in evaluated if e.number is None)
    named = [f"{name}:base" if len(bases) == 1 else f"{name}:base:{base}" for base in bases]
    return [*named, *(f"{name}:{number}" for number in numbers)]


def compare(keys: Sequence[str], reference: str | None = None, metric: str | None = None) -> SideBySide:
    """Return subjects side by side, cached until a study changes.

    Raises:
        UserError: If there are too few or too many, or a name is invalid.
        StudyStateError: If a study or a trial does not exist.
    """
    with home.database() as database:
        changes = tuple((record.name, record.changes) for record in database.studies.all())
        return _compare(database.address, tuple(keys), reference, metric, changes)


@lru_cache(maxsize=16)
def _compare(
    address: Address, keys: tuple[str, ...], reference: str | None, metric: str | None, changes: Any
) -> SideBySide:
    with home.database() as database:
        return side_by_side(find_subjects(database, keys), reference=reference, metric=metric)


def keys(found: SideBySide) -> list[str]:
    """Return the names of the subjects as shown, in order."""
    return [clean(of.key) for of in found.subjects]


def subjects(found: SideBySide) -> pd.DataFrame:
    """Return a description of each subject."""
    rows = [
        {
            "subject": of.key,
            "description": of.words,
            "base model": of.base_model,
            "scored": "yes" if of.scores else "no",
            "reference": "reference" if of.key == found.reference else "",
        }
        for of in found.subjects
    ]
    return frames.frame(rows, ["subject", "description", "base model", "scored", "reference"])


def scores(found: SideBySide) -> pd.DataFrame:
    """Return every score with its interval, and the paired difference from the reference with its verdict.

    Columns: ``metric``, ``subject``, ``score``, ``low``, ``high``, ``difference``, ``diff_low``, ``diff_high``, ``p``,
    ``corrected p``, ``verdict``.
    """
    rows = []
    for metric in found.metrics:
        for key, score in found.scores[metric].items():
            one = found.against[metric].get(key)
            verdict = one.verdict if one else "reference" if key == found.reference else "not paired"
            row = {"metric": metric, "subject": key, "score": score.score, "low": score.low, "high": score.high}
            if one is not None:
                span = one.difference.interval
                row |= {"difference": one.difference.value, "diff_low": span.low, "diff_high": span.high}
                row |= {"p": one.p, "corrected p": one.corrected_p}
            rows.append(row | {"verdict": verdict})
    numbers = ("score", "low", "high", "difference", "diff_low", "diff_high", "p", "corrected p")
    return frames.frame(rows, ["metric", "subject", *numbers, "verdict"]).astype(dict.fromkeys(numbers, float))


def bounded(found: SideBySide) -> list[str]:
    """Return the metrics from 0 to 1 of which larger is better, which can share an axis."""
    return [name for name in found.metrics if name not in UNBOUNDED and direction(name) == "maximize"]


def smaller_is_better(metric: str) -> bool:
    """Return whether smaller values of a metric are better."""
    return direction(metric) == "minimize"


def rows(found: Sequence[ComparedFact], keys: Sequence[str]) -> pd.DataFrame:
    """Return facts as a table of text with a column per subject; those that differ are marked and come first."""
    ordered = sorted(found, key=lambda row: not row.differs)
    told = [
        {"": "differs" if row.differs else "", "what": row.name, **{key: _text(row.values.get(key)) for key in keys}}
        for row in ordered
    ]
    return frames.frame(told, ["", "what", *keys]).rename(columns=clean)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else clean(value)


def curves(found: SideBySide) -> tuple[str, pd.DataFrame]:
    """Return the metric of the reference's search, and ``subject``, ``percent``, ``value`` of its curves."""
    with home.database() as database:
        read = read_curves(database, found)
    told = [{"subject": key, "percent": x, "value": y} for key, line in read.lines.items() for x, y in line]
    return clean(read.metric), frames.frame(told, ["subject", "percent", "value"])


def examples(found: SideBySide) -> pd.DataFrame:
    """Return every example with the subjects' scores by the deciding metric, and whether they differ.

    Columns: ``example``, ``differs``, a column a subject, ``prompt``, ``due``.
    """
    shown = found.paired
    differing = set(differing_examples(found))
    told = []
    for same in zip(*(of.examples for of in shown), strict=True):
        first, metric = same[0], found.metric or ""
        own = {of.key: example.scores.get(metric) for of, example in zip(shown, same, strict=True)}
        differs = "differs" if first.index in differing else ""
        told.append({"example": first.index, "differs": differs, **own, "prompt": first.prompt, "due": first.reference})
    keys = [of.key for of in shown]
    return frames.frame(told, ["example", "differs", *keys, "prompt", "due"]).rename(columns=clean)


def texts(found: SideBySide, index: int) -> list[tuple[str, str]]:
    """Return (subject, text) of each answer to one example, the reference first."""
    return [
        (of.key, clean(next(example.generated for example in of.examples if example.index == index)))
        for of in found.paired
    ]


def report(found: SideBySide, kind: str) -> str:
    """Return the comparison as a report: ``html`` or ``md``."""
    with home.database() as database:
        whole = comparison_report(found, read_curves(database, found))
    return html(whole) if kind == "html" else markdown(whole)


def command(found: SideBySide) -> str:
    """Return the command that writes the same report."""
    words = ["sweeper", "compare", *(of.key for of in found.subjects), "--reference", found.reference]
    return clean(shlex.join([*words, "--out", "report.html"]))
