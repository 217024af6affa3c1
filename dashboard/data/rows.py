"""A study's data as its training sees them: looked at once, then kept in memory while the files stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd
from sweeper_dashboard.data import frames, home

from sweeper.data.as_trained import TrainedRow, as_trained
from sweeper.data.duplicates import Place, text_of
from sweeper.data.inspection import Lengths, SplitView
from sweeper.data.splits import SPLITS
from sweeper.data.tokenizer import ModelTokenizer
from sweeper.errors import DataError
from sweeper.paths import Home
from sweeper.study.data_inspection import Inspection, StudyData, inspect_study, study_data

__all__ = ["SPLITS", "View", "view"]

ONLY = ("all rows", "cut or left out", "duplicates")
"""Which rows the browser shows."""

_KEPT = 4
"""Studies whose inspection stays in memory."""

_LISTED = 200
"""Groups of duplicates that are listed."""

_SHORT = 160


@dataclass(frozen=True)
class View:
    """One study's data in the tokens of one of its models.

    Attributes:
        technique: The kind of training.
        learning: What training learns of a row.
        models: Names of the base models, each with its own tokens.
        max_length: Where rows are cut, in tokens.
        facts: A row a measure, a column a split.
        notes: What the numbers leave out.
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
        """Return the tokens of every counted row of a split."""
        return list(self.inspection.splits[split].totals)

    def numbers(self, split: str, search: str, only: str) -> list[int]:
        """Return the numbers of the rows that are looked for."""
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
        """Return groups of rows that say the same, exact ones first."""
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


def view(study: str, model: str | None = None) -> View:
    """Return a study's data as its training sees them.

    Raises:
        StudyStateError: If there is no such study.
        DataError: If its prepared data are not in the home, or cannot be read by the model's tokenizer.
        ModelError: If the tokenizer is gone.
    """
    with home.database() as database:
        data = study_data(Home.current(), database, study)
    if model is not None and model not in data.models:
        raise DataError(f"study {study!r} has no model {model!r}; it has {', '.join(data.models)}")
    name = next(iter(data.models)) if model is None else model
    stamps = tuple(map(_stamp, (*data.splits.values(), data.models[name])))
    return _looked_at(study, name, str(Home.current().folder), data.technique.model_dump_json(), stamps, _Data(data))


@dataclass(frozen=True)
class _Data:
    """A study's data as a key that is always the same: what tells them apart stands beside it."""

    data: StudyData

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Data)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=_KEPT)
def _looked_at(study: str, model: str, folder: str, technique: str, stamps: tuple[float, ...], of: _Data) -> View:
    inspection = inspect_study(of.data, model)
    return View(
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
    return ModelTokenizer(folder)


def _stamp(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0


def _facts(of: Inspection) -> pd.DataFrame:
    rows = [
        {"measure": label, **{split: show(of, split) for split in SPLITS}} for group in _FACTS for label, show in group
    ]
    return frames.frame(rows, ["measure", *SPLITS])


def _length(part: Callable[[SplitView], Lengths]) -> Callable[[Inspection, str], str]:
    def show(of: Inspection, split: str) -> str:
        found = part(of.splits[split])
        return f"{found.median:,.0f} median, {found.p95:,} at 95 %, {found.longest:,} longest"

    return show


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _near(of: Inspection, split: str, other: str) -> str:
    return f"{of.duplicates.near_shared(split, other):,}" if of.duplicates.looked_for_near else "not looked for"


_FACTS: tuple[tuple[tuple[str, Callable[[Inspection, str], str]], ...], ...] = (
    (
        ("Rows", lambda of, split: f"{of.splits[split].rows:,}"),
        ("Columns", lambda of, split: ", ".join(of.splits[split].columns)),
        ("Tokens of a row", _length(lambda view: view.total)),
        ("Tokens of a prompt", _length(lambda view: view.prompt)),
        ("Tokens of an answer", _length(lambda view: view.answer)),
    ),
    (
        ("Rows cut or left out", lambda of, split: _share(of.splits[split].truncated)),
        ("Rows left out", lambda of, split: _share(len(of.splits[split].dropped) / len(of.splits[split].counted))),
        (
            "Tokens with a loss that are lost",
            lambda of, split: f"{of.splits[split].lost_loss_tokens:,} ({_share(of.splits[split].lost)})",
        ),
        ("Rows with an empty answer", lambda of, split: f"{of.splits[split].empty_answers:,}"),
    ),
    (
        ("Rows that repeat another", lambda of, split: f"{of.duplicates.repeated(split):,}"),
        ("Rows that nearly repeat another", lambda of, split: _near(of, split, split)),
        (
            "Rows also in train",
            lambda of, split: "" if split == "train" else f"{of.duplicates.shared(split, 'train'):,}",
        ),
        ("Rows nearly in train", lambda of, split: "" if split == "train" else _near(of, split, "train")),
        ("Different pairs of words in answers", lambda of, split: _share(of.splits[split].distinct_bigrams)),
        ("Different words in answers", lambda of, split: _share(of.splits[split].type_token_ratio)),
    ),
)


def _notes(of: Inspection) -> list[str]:
    notes = [
        f"{split}: tokens counted in {len(seen.counted):,} of {seen.rows:,} rows, taken evenly"
        for split, seen in of.splits.items()
        if len(seen.counted) < seen.rows
    ]
    if not of.duplicates.looked_for_near:
        notes.append("near duplicates are looked for in smaller data only; exact ones are")
    return notes


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHORT else line[: _SHORT - 1] + "…"
