"""The report of a comparison, in parts that are rendered as Markdown or HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sweeper import __version__
from sweeper.config.evaluation import direction
from sweeper.evaluation.compare.side_by_side import ComparedFact, SideBySide
from sweeper.evaluation.compare.subjects import TEST, ComparedSubject
from sweeper.evaluation.compare.summary import CORRECTION, conclude
from sweeper.evaluation.compare.svg_charts import Bar
from sweeper.search.curves import percent
from sweeper.store import Database

SHOWN_EXAMPLES = 20
"""Differing examples that are shown."""


@dataclass(frozen=True)
class Words:
    """Paragraphs."""

    paragraphs: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table of plain cells; the rows in ``strong`` stand out."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Bars:
    """Values with intervals; ``zero`` draws the line of no difference."""

    bars: tuple[Bar, ...]
    zero: bool = False


@dataclass(frozen=True)
class Curves:
    """Values of one metric by per cent of the training, by subject."""

    metric: str
    lines: Mapping[str, tuple[tuple[float, float], ...]]


@dataclass(frozen=True)
class Answers:
    """Answers to one example.

    Attributes:
        title: Title of the example.
        prompt: The prompt.
        due: The reference answer.
        texts: (subject, score, text) of each; the others are marked against the first.
    """

    title: str
    prompt: str
    due: str
    texts: tuple[tuple[str, str, str], ...]


Part = Words | Table | Bars | Curves | Answers


@dataclass(frozen=True)
class ReportSection:
    """A heading and the parts below it."""

    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class ComparisonReport:
    """A report; ``made`` is its date and the version of sweeper."""

    title: str
    made: str
    headline: str
    sections: tuple[ReportSection, ...]


def comparison_report(
    found: SideBySide, curves: Curves | None = None, *, now: datetime | None = None
) -> ComparisonReport:
    """Return a comparison as a report."""
    conclusion = conclude(found)
    count = len(found.subject(found.reference).examples)
    sections = [
        ReportSection("Verdict", (Words((*conclusion.sentences, f"{count} test examples. {CORRECTION}")),)),
        ReportSection("Subjects", (_identities(found),)),
        *(ReportSection(f"Scores: {metric}", tuple(_score_parts(found, metric))) for metric in found.metrics),
        ReportSection("Differences in origin and hyperparameters", tuple(_made(found))),
        *([ReportSection("Cost", (_rows_table(found, found.costs),))] if found.costs else []),
    ]
    if curves is not None and curves.lines:
        sections.append(ReportSection(f"Learning curves: {curves.metric} on the validation split", (curves,)))
    answers = tuple(_answers(found))
    if answers:
        shown = f"Showing {len(answers)} of {len(differing_examples(found))}, alternating losses and wins."
        sections.append(ReportSection("Examples that differ", (Words((shown,)), *answers)))
    made = f"{now or datetime.now(UTC):%Y-%m-%d %H:%M} UTC, sweeper {__version__}"
    title = f"Comparison of {', '.join(subject.key for subject in found.subjects)}"
    return ComparisonReport(title, made, conclusion.headline, tuple(sections))


def read_curves(database: Database, found: SideBySide) -> Curves:
    """Return the curves of the deciding metric of the reference's search."""
    config = found.subject(found.reference).study.config
    metric = str((config.get("evaluation") or {}).get("metric"))
    lines = {subject.key: _curve(database, subject, metric) for subject in found.subjects}
    return Curves(metric, {key: line for key, line in lines.items() if line})


def _curve(database: Database, subject: ComparedSubject, metric: str) -> tuple[tuple[float, float], ...]:
    trial = subject.trial
    if trial is None or not trial.total_steps:
        return ()
    points = database.metrics.get(subject.study.name, number=trial.number, name=metric)
    return tuple((percent(point.step / trial.total_steps), point.value) for point in points)


def _identities(found: SideBySide) -> Table:
    """Return a description of each subject, with the hashes that identify it."""
    header = ("subject", "description", "base model", "base model hash", "adapter hash", f"data hash, {TEST}")
    rows = tuple(
        (
            subject.key + " (reference)" * (subject.key == found.reference),
            subject.words,
            subject.base_model,
            subject.fingerprint,
            (subject.trial.adapter_sha256 if subject.trial else None) or "",
            str(subject.study.data_sha256.get(TEST, "")),
        )
        for subject in found.subjects
    )
    return Table(header, rows)


def _score_parts(found: SideBySide, metric: str) -> list[Part]:
    scores, against = found.scores[metric], found.against[metric]
    keys = [subject.key for subject in found.subjects if subject.key in scores]
    sign = 1 if direction(metric) == "minimize" else -1
    best = min(keys, key=lambda key: sign * scores[key].score)
    header = ("subject", metric, "95 % interval", f"minus {found.reference}", "95 % interval", "p", "corrected p", "")
    rows = []
    for key in keys:
        one, own = against.get(key), scores[key]
        paired = ("", "", "", "", "reference" if key == found.reference else "not paired")
        if one is not None:
            span = interval(one.difference.interval.low, one.difference.interval.high, signed=True)
            paired = (f"{one.difference.value:+.3f}", span, f"{one.p:.3f}", f"{one.corrected_p:.3f}", one.verdict)
        rows.append((key, f"{own.score:.3f}", interval(own.low, own.high), *paired))
    strong = frozenset({keys.index(best)})
    parts: list[Part] = [Table(header, tuple(rows), strong)]
    parts.append(Bars(tuple(Bar(key, scores[key].score, scores[key].low, scores[key].high) for key in keys)))
    differences = tuple(
        Bar(f"{key} - {found.reference}", of.difference.value, of.difference.interval.low, of.difference.interval.high)
        for key, of in against.items()
    )
    if differences:
        better = "smaller" if direction(metric) == "minimize" else "larger"
        parts += [Words((f"Paired differences on the same examples; {better} is better.",)), Bars(differences, True)]
    return parts


def _made(found: SideBySide) -> list[Part]:
    differing = [row for row in (*found.origins, *found.parameters) if row.differs]
    same = [f"{row.name} {_value(next(iter(row.values.values())))}" for row in found.parameters if not row.differs]
    parts: list[Part] = [_rows_table(found, differing)]
    if not differing:
        parts = [Words(("Nothing differs.",))]
    return [*parts, Words((f"The same in all: {', '.join(same)}.",))] if same else parts


def _rows_table(found: SideBySide, rows: Sequence[ComparedFact]) -> Table:
    keys = [subject.key for subject in found.subjects]
    return Table(("", *keys), tuple((row.name, *(_value(row.values.get(key)) for key in keys)) for row in rows))


def differing_examples(found: SideBySide) -> list[int]:
    """Return the examples on which any subject and the reference differ, alternating losses and wins."""
    losses = [index for one in found.examples.values() for index in one.losses]
    wins = [index for one in found.examples.values() for index in one.wins]
    longest = max(len(losses), len(wins), 0)
    turns = [queue[turn] for turn in range(longest) for queue in (losses, wins) if turn < len(queue)]
    return list(dict.fromkeys(turns))


def _answers(found: SideBySide) -> list[Answers]:
    metric = found.metric
    by_index = [{example.index: example for example in subject.examples} for subject in found.paired]
    answers = []
    for index in differing_examples(found)[:SHOWN_EXAMPLES]:
        of = [known[index] for known in by_index]
        texts = tuple(
            (subject.key, _value(example.scores.get(metric or "")), example.generated)
            for subject, example in zip(found.paired, of, strict=True)
        )
        answers.append(Answers(f"Example {index}", of[0].prompt, of[0].reference, texts))
    return answers


def interval(low: float | None, high: float | None, *, signed: bool = False) -> str:
    """Return an interval as text; empty without one."""
    if low is None or high is None:
        return ""
    return f"{low:+.3f} to {high:+.3f}" if signed else f"{low:.3f} to {high:.3f}"


def _value(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
