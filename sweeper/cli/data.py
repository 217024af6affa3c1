"""``sweeper data``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from sweeper.cli.home import StudyName
from sweeper.cli.output import Json, console, emit_json, safe, say, table
from sweeper.data.inspection import Lengths, SplitView
from sweeper.data.splits import SPLITS
from sweeper.paths import Home
from sweeper.store import Database
from sweeper.study.data_inspection import Inspection, inspect_study, study_data


def data(
    name: StudyName,
    model: Annotated[
        str | None, typer.Option(help="Count the tokens of this base model; the study's first by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a study's data as training sees them: lengths in tokens, truncated rows, duplicates, variety."""
    home = Home.current()
    with Database.open(home.database, create=False) as database:
        found = study_data(home, database, name)
    inspection = inspect_study(found, model)
    if as_json:
        emit_json(_as_json(inspection))
        return
    technique = inspection.data.technique
    say(
        f"[bold]{safe(name)}[/]: {technique.kind}, in the tokens of {safe(inspection.model)}, "
        f"cut at {technique.max_length:,} tokens"
    )
    rows = [(label, *(show(inspection, split) for split in SPLITS)) for label, show in _FACTS.items()]
    console().print(table(("", *(f"{split}>" for split in SPLITS)), rows))
    for split, view in inspection.splits.items():
        if len(view.counted) < view.rows:
            say(f"tokens were counted in {len(view.counted):,} of {view.rows:,} rows of {split}")


def _lengths(of: Callable[[SplitView], Lengths]) -> Callable[[Inspection, str], str]:
    def show(inspection: Inspection, split: str) -> str:
        found = of(inspection.splits[split])
        return f"{found.mean:.0f} / {found.median:.0f} / {found.p95:,} / {found.longest:,}"

    return show


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


_FACTS: dict[str, Callable[[Inspection, str], str]] = {
    "rows": lambda of, split: f"{of.splits[split].rows:,}",
    "columns": lambda of, split: ", ".join(of.splits[split].columns),
    "tokens (mean/median/95 %/longest)": _lengths(lambda view: view.total),
    "prompt tokens": _lengths(lambda view: view.prompt),
    "answer tokens": _lengths(lambda view: view.answer),
    "rows truncated or dropped": lambda of, split: _share(of.splits[split].truncated),
    "rows dropped": lambda of, split: _share(len(of.splits[split].dropped) / len(of.splits[split].counted)),
    "loss tokens lost": lambda of, split: f"{of.splits[split].lost_loss_tokens:,} ({_share(of.splits[split].lost)})",
    "empty answers": lambda of, split: f"{of.splits[split].empty_answers:,}",
    "repeated rows": lambda of, split: f"{of.duplicates.repeated(split):,}",
    "nearly repeated rows": lambda of, split: _near(of, split, split),
    "also in train": lambda of, split: "" if split == "train" else f"{of.duplicates.shared(split, 'train'):,}",
    "nearly also in train": lambda of, split: "" if split == "train" else _near(of, split, "train"),
    "distinct word pairs": lambda of, split: _share(of.splits[split].distinct_bigrams),
    "distinct words": lambda of, split: _share(of.splits[split].type_token_ratio),
}


def _near(of: Inspection, split: str, other: str) -> str:
    return f"{of.duplicates.near_shared(split, other):,}" if of.duplicates.looked_for_near else "too many rows"


_BY_ROW = ("counted", "totals", "cut", "dropped")
"""Attributes of a split that have an entry per row."""


def _as_json(inspection: Inspection) -> dict[str, Any]:
    duplicates = inspection.duplicates
    splits = {
        split: {
            **{name: value for name, value in vars(view).items() if name not in _BY_ROW},
            "rows_counted": len(view.counted),
            "rows_cut": len(view.cut),
            "rows_dropped": len(view.dropped),
            "repeated": duplicates.repeated(split),
            "also_in_train": None if split == "train" else duplicates.shared(split, "train"),
            "nearly_repeated": duplicates.near_shared(split, split) if duplicates.looked_for_near else None,
        }
        for split, view in inspection.splits.items()
    }
    return {
        "study": inspection.data.name,
        "technique": inspection.data.technique.kind,
        "model": inspection.model,
        "max_length": inspection.max_length,
        "splits": splits,
    }
