"""Trials: state, hyperparameters, curves, pruning, scores and examples."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from sweeper.config.evaluation import direction
from sweeper.config.space import as_range, describe
from sweeper.errors import StudyStateError
from sweeper.redact import clean
from sweeper.search.pruners.build import rungs
from sweeper.store import PruningDecision, TrialKind, TrialRecord
from sweeper_dashboard.data import frames, home, search, studies
from sweeper_dashboard.data.snapshots import Snapshot, snapshot

FIELD = 200
"""Other trials whose curves make the band behind a trial's own curve."""


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
        record: The trial as stored; clean its texts before they are shown.
        of: Its study.
        outcome: Its outcome, ``running`` if it has none.
        place: Its rank among the completed trials by value, 1 for the best; None if it has not completed.
        complete: Number of completed trials.
        best: The best completed trial.
        rival: The best other trial that was scored on the test split, if any.
        relations: (relation, number) of related trials: those that it repeats, and that repeat it.
        versions: (adapter, version) registered from it.
    """

    record: TrialRecord
    of: Snapshot
    outcome: str
    place: int | None
    complete: int
    best: int | None
    rival: int | None
    relations: tuple[tuple[str, int], ...]
    versions: tuple[tuple[str, int], ...]

    @property
    def number(self) -> int:
        """Its number in the study."""
        return self.record.number

    @property
    def study(self) -> str:
        """Its study's name, as stored."""
        return self.of.record.name

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.record.outcome is None

    @property
    def numbers(self) -> list[int]:
        """The numbers of the study's trials, in order."""
        return list(self.of.trials)

    @property
    def reason(self) -> str:
        """Why it ended; empty if no reason was recorded."""
        return clean(self.record.reason or "")


@dataclass(frozen=True)
class Pruning:
    """The pruner's part in a trial.

    Attributes:
        pruner: Kind of the study's pruner.
        rungs: Rungs of the trial, in per cent of its training.
        decisions: What the pruner decided, in order.
        note: Why there are no decisions; empty if there are some.
    """

    pruner: str
    rungs: tuple[int, ...]
    decisions: tuple[PruningDecision, ...]
    note: str


def trial(study: str, number: int | None = None) -> Trial | None:
    """Return a trial; without a number the best, or the first; None if the study has no trials.

    Raises:
        StudyStateError: If the study or the trial does not exist.
    """
    with home.database() as database:
        of = snapshot(database, database.studies.get(study))
        versions = [(a.name, a.version, a.number) for a in database.adapters.all() if a.study == study]
        scored = {evaluation.number for evaluation in database.evaluations.all(study)}
    ranked = _ranked(of)
    if number is None:
        number = next(iter(ranked or of.trials), None)
    if number is None:
        return None
    record = of.trials.get(number)
    if record is None:
        raise StudyStateError(f"study {study!r} has no trial {number}; it has {len(of.trials)} trials")
    return Trial(
        record=record,
        of=of,
        outcome=frames.outcome(record),
        place=ranked.index(number) + 1 if number in ranked else None,
        complete=len(ranked),
        best=ranked[0] if ranked else None,
        rival=next((other for other in ranked if other in scored and other != number), None),
        relations=tuple(_relations(record, of.trials.values())),
        versions=tuple((name, version) for name, version, of_trial in versions if of_trial == number),
    )


def _ranked(of: Snapshot) -> list[int]:
    done = of.table[of.table["value"].notna()]
    ordered = done.sort_values(["value", "trial"], ascending=[of.direction == "minimize", True])
    return [int(number) for number in ordered["trial"]]


def _relations(record: TrialRecord, others: Iterable[TrialRecord]) -> Iterable[tuple[str, int]]:
    own = {"repeats": record.confirms, "restarts": record.restarts, "clone of": record.clones}
    yield from ((how, number) for how, number in own.items() if number is not None)
    for other in others:
        if other.confirms == record.number:
            yield "repeated by", other.number
        if other.restarts == record.number:
            yield "restarted as", other.number
        if other.clones == record.number:
            yield "cloned as", other.number


def parameters(found: Trial) -> pd.DataFrame:
    """Return its hyperparameters beside the best trial's and the ranges searched, those that differ first."""
    best = found.of.trials.get(found.best) if found.best is not None else None
    own, theirs = frames.flat(found.record.parameters), {} if best is None else frames.flat(best.parameters)
    ranges = found.of.record.space.get("space")
    ranges = ranges if isinstance(ranges, Mapping) else {}
    rows = []
    for name in dict.fromkeys([*own, *theirs]):
        differs = best is not None and own.get(name) != theirs.get(name)
        row = {"": "differs" if differs else "", "hyperparameter": name, "this trial": _shown(own.get(name))}
        row |= {} if best is None else {f"best, trial {found.best}": _shown(theirs.get(name))}
        rows.append(row | {"searched": _range(ranges, name)})
    rows.sort(key=lambda row: not row[""])
    return frames.frame(rows, ["", "hyperparameter", "this trial"])


def _shown(value: Any) -> str:
    """Return a value as text, because a column holds numbers, words and lists."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def _range(ranges: Mapping[str, Any], name: str) -> str:
    """Return the range searched for a hyperparameter, of each alternative if they differ."""
    bare = name.removeprefix("trl.")
    found = {full: raw for full, raw in ranges.items() if full == bare or full.endswith(f".{bare}")}
    told = []
    for full, raw in found.items():
        try:
            words = describe(as_range(raw))
        except ValidationError:
            continue
        told.append(words if full == bare else f"{full.removesuffix(f'.{bare}')}: {words}")
    return clean("; ".join(told)) if told else "not searched"


def curve(found: Trial) -> pd.DataFrame:
    """Return its reported values: ``metric``, ``value`` and ``step``, ``epoch``, ``tokens``, ``time``, ``percent``."""
    rows = search.with_axes(found.of, search.curve_rows(found.of, [found.number]))
    total = found.record.total_steps or np.nan
    return rows.assign(percent=100 * rows["step"] / total)


def field(found: Trial) -> tuple[pd.DataFrame, int, int]:
    """Return the band of other trials of the same length: median and quartiles by per cent of their training.

    Returns:
        A frame of ``percent``, ``low``, ``median``, ``high``, ``trials``; how many trials it is of; and of how many.
    """
    length = found.record.parameters.get("epochs")
    alike = [
        number
        for number, other in found.of.trials.items()
        if number != found.number and other.total_steps and other.parameters.get("epochs") == length
    ]
    chosen = search.sampled(alike, FIELD)
    rows = search.curve_rows(found.of, chosen, [found.of.metric]).dropna(subset=["value"])
    totals = rows["trial"].map(lambda number: found.of.trials[number].total_steps)
    rows = rows.assign(percent=(100 * rows["step"] / totals).round())
    rows = rows.drop_duplicates(["trial", "percent"])
    groups = rows.groupby("percent")["value"]
    band = pd.DataFrame(
        {
            "low": groups.quantile(0.25),
            "median": groups.median(),
            "high": groups.quantile(0.75),
            "trials": groups.count(),
        }
    ).reset_index()
    return band, rows["trial"].nunique(), len(alike)


def pruning(found: Trial) -> Pruning:
    """Return the pruner's part in the trial, as it was recorded."""
    pruner, record, stored = search.pruner_of(found.of.record), found.record, found.of.record.config
    note = ""
    if pruner.kind == "none":
        note = "The pruner had no say: this study prunes nothing."
    elif stored.get("evaluation", {}).get("objectives"):
        note = "The pruner had no say: with several objectives nothing is pruned."
    elif record.kind is TrialKind.CONFIRMATION:
        note = "The pruner had no say: a trial that repeats a good one with a fresh seed is never pruned."
    if note:
        return Pruning(pruner.kind, (), (), note)
    with home.database() as database:
        decisions = database.decisions.of(found.study, found.number)
    if decisions is None:
        note = "This study was run before pruning decisions were recorded."
    elif not decisions:
        note = "It has not been judged: it has not reached a point where its pruner compares trials."
    return Pruning(pruner.kind, rungs(pruner, record.seed), decisions or (), note)


def decided(found: Pruning) -> pd.DataFrame:
    """Return the pruner's decisions as a table."""
    rows = [
        {
            "rung %": decision.rung,
            "at %": decision.progress,
            "value": decision.value,
            "rank": "" if decision.rank is None else f"{decision.rank} of {decision.peers + 1}",
            "continue": decision.continuing,
            "needed": decision.threshold,
            "decision": "pruned" if decision.pruned else "kept",
            "compared with": ", ".join(f"{number}: {value:.4g}" for number, value in decision.compared)
            + (", ..." if decision.peers > len(decision.compared) else ""),
        }
        for decision in found.decisions
    ]
    columns = ["rung %", "at %", "value", "rank", "continue", "needed", "decision", "compared with"]
    return frames.frame(rows, columns)


def splits(found: Trial) -> list[str]:
    """Return the splits that the trial was scored on."""
    with home.database() as database:
        return list(dict.fromkeys(e.split for e in database.evaluations.all(found.study) if e.number == found.number))


def scores(found: Trial, split: str) -> pd.DataFrame:
    """Return its scores on a split, with intervals and the paired difference from its base model."""
    with home.database() as database:
        table = frames.scores(e for e in database.evaluations.all(found.study) if e.number == found.number)
    return table[table["split"] == split].drop(columns=["subject", "trial", "split"]).reset_index(drop=True)


def examples(found: Trial, split: str, metric: str) -> pd.DataFrame:
    """Return its examples beside its base model's, with ``won``: ``win``, ``loss`` or ``tie`` by a metric."""
    table = studies.examples(found.study, found.number, split, metric)
    gain = table["trial score"].astype(float) - table["base score"].astype(float)
    gain = gain if direction(metric) == "maximize" else -gain
    won = np.select([gain > 0, gain < 0], ["win", "loss"], "tie")
    return table.assign(gain=gain, won=won)


def events(found: Trial) -> pd.DataFrame:
    """Return the events of the trial, oldest first."""
    with home.database() as database:
        return frames.events(database.events.all(found.study, number=found.number)).drop(columns="trial")
