"""A study's data as training sees them, inspected once and cached until the files change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd

from sweeper.data.as_trained import TrainedRow, as_trained
from sweeper.data.duplicates import Place, text_of
from sweeper.data.inspection import Lengths, SplitView
from sweeper.data.splits import SPLITS
from sweeper.data.tokenizer import ModelTokenizer
from sweeper.errors import DataError
from sweeper.paths import Home
from sweeper.study.data_inspection import Inspection, StudyData, inspect_study, study_data
from sweeper_dashboard.data import frames, home

__all__ = ["SPLITS", "TrainingData", "view"]

ONLY = ("all rows", "truncated or excluded", "duplicates")
"""Filters of the example browser."""

_KEPT = 4
"""Inspections that are cached."""

_LISTED = 200
"""Groups of duplicates that are listed."""

_SHORT = 160


@dataclass(frozen=True)
class TrainingData:
    """A study's data in the tokens of one of its models.

    Attributes:
        technique: The kind of training.
        learning: A description of what training learns from a row.
        models: Names of the base models, each with its own tokenizer.
        max_length: Length to which rows are truncated, in tokens.
        facts: One measure per row, one split per column.
        notes: Limits of the numbers.
        kinds: ``exact`` or ``near`` by the place of every duplicate.
    """

    inspection: Inspection
    technique: str
    learning: str
    models: tuple[str, ...]
    max_length: int
    facts: pd.DataFrame
    notes: tuple[str, ...]
    kinds: Mapping[Place, str]

    def lengths(self, split: str) -> list[int]:
        """Return the length of every counted row of a split."""
        return list(self.inspection.splits[split].totals)

    def numbers(self, split: str, search: str, only: str) -> list[int]:
        """Return the numbers of the rows that match a search and one of ``ONLY``."""
        rows = self.inspection.rows[split]
        found = list(range(len(rows)))
        if only == ONLY[1]:
            found = list(self.inspection.splits[split].cut)
        elif only == ONLY[2]:
            found = [number for number in found if (split, number) in self.kinds]
        wanted = search.casefold()
        return [number for number in found if wanted in text_of(rows[number]).casefold()] if wanted else found

    def example(self, split: str, number: int) -> TrainedRow:
        """Return a row in tokens, as training sees it."""
        data = self.inspection.data
        folder = data.models[self.inspection.model]
        return as_trained(self.inspection.rows[split][number], _tokenizer(folder, _stamp(folder)), data.technique)

    def duplicates(self) -> pd.DataFrame:
        """Return groups of duplicate rows, exact ones first."""
        found = self.inspection.duplicates
        rows = [("exact", group, 1.0) for group in found.exact]
        rows += [("near", (first, second), similarity) for first, second, similarity in found.near]
        return frames.frame(
            (
                {
                    "kind": kind,
                    "rows": len(places),
                    "similarity": similarity,
                    "where": ", ".join(f"{split} {number + 1}" for split, number in places[:8]),
                    "text": _shortened(text_of(self.inspection.rows[places[0][0]][places[0][1]])),
                }
                for kind, places, similarity in rows[:_LISTED]
            ),
            ["kind", "rows", "similarity", "where", "text"],
        )


def view(study: str, model: str | None = None) -> TrainingData:
    """Return a study's data as its training sees them.

    Raises:
        StudyStateError: If the study does not exist.
        DataError: If its prepared data are not in the home, or cannot be read by the model's tokenizer.
        ModelError: If the tokenizer is gone.
    """
    with home.database() as database:
        data = study_data(Home.current(), database, study)
    if model is not None and model not in data.models:
        raise DataError(f"study {study!r} has no model {model!r}; it has {', '.join(data.models)}")
    name = next(iter(data.models)) if model is None else model
    stamps = tuple(map(_stamp, (*data.splits.values(), data.models[name])))
    return _inspected(study, name, str(Home.current().folder), data.technique.model_dump_json(), stamps, _Data(data))


@dataclass(frozen=True)
class _Data:
    """A study's data as a cache key that always matches: the other keys tell them apart."""

    data: StudyData

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Data)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=_KEPT)
def _inspected(
    study: str, model: str, folder: str, technique: str, stamps: tuple[float, ...], of: _Data
) -> TrainingData:
    inspection = inspect_study(of.data, model)
    return TrainingData(
        inspection=inspection,
        technique=of.data.technique.kind,
        learning=of.data.technique.learning,
        models=tuple(of.data.models),
        max_length=inspection.max_length,
        facts=_facts(inspection),
        notes=tuple(_notes(inspection)),
        kinds=inspection.duplicates.places(),
    )


@lru_cache(maxsize=_KEPT)
def _tokenizer(folder: Path, stamp: float) -> ModelTokenizer:
    return ModelTokenizer.load(folder)


def _stamp(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0


def _facts(of: Inspection) -> pd.DataFrame:
    rows = [{"measure": label, **{split: show(of, split) for split in SPLITS}} for label, show in _FACTS]
    return frames.frame(rows, ["measure", *SPLITS])


def _length(part: Callable[[SplitView], Lengths]) -> Callable[[Inspection, str], str]:
    def show(of: Inspection, split: str) -> str:
        found = part(of.splits[split])
        return f"median {found.median:,.0f}, 95th percentile {found.p95:,}, longest {found.longest:,}"

    return show


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _near(of: Inspection, split: str, other: str) -> str:
    return f"{of.duplicates.near_shared(split, other):,}" if of.duplicates.looked_for_near else "not searched"


_FACTS: tuple[tuple[str, Callable[[Inspection, str], str]], ...] = (
    ("Rows", lambda of, split: f"{of.splits[split].rows:,}"),
    ("Columns", lambda of, split: ", ".join(of.splits[split].columns)),
    ("Tokens per row", _length(lambda view: view.total)),
    ("Tokens per prompt", _length(lambda view: view.prompt)),
    ("Tokens per answer", _length(lambda view: view.answer)),
    ("Rows truncated or excluded", lambda of, split: _share(of.splits[split].truncated)),
    ("Rows excluded", lambda of, split: _share(len(of.splits[split].dropped) / len(of.splits[split].counted))),
    (
        "Learned tokens lost to truncation",
        lambda of, split: f"{of.splits[split].lost_loss_tokens:,} ({_share(of.splits[split].lost)})",
    ),
    ("Rows with an empty answer", lambda of, split: f"{of.splits[split].empty_answers:,}"),
    ("Duplicates in the split", lambda of, split: f"{of.duplicates.repeated(split):,}"),
    ("Near-duplicates in the split", lambda of, split: _near(of, split, split)),
    (
        "Duplicates of train rows",
        lambda of, split: "" if split == "train" else f"{of.duplicates.shared(split, 'train'):,}",
    ),
    ("Near-duplicates of train rows", lambda of, split: "" if split == "train" else _near(of, split, "train")),
    ("Distinct word pairs in answers", lambda of, split: _share(of.splits[split].distinct_bigrams)),
    ("Distinct words in answers", lambda of, split: _share(of.splits[split].type_token_ratio)),
)


def _notes(of: Inspection) -> list[str]:
    notes = [
        f"{split}: tokens counted in an even sample of {len(seen.counted):,} of {seen.rows:,} rows"
        for split, seen in of.splits.items()
        if len(seen.counted) < seen.rows
    ]
    if not of.duplicates.looked_for_near:
        notes.append("near-duplicates are searched for in smaller data only; exact duplicates always are")
    return notes


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHORT else line[: _SHORT - 1] + "…"
