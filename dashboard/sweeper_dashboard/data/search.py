"""Data for the charts of a study: samples of its trials, and curves over any axis."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter, ValidationError

from sweeper.config.search import NoPruner, Pruner
from sweeper.redact import clean
from sweeper.search.in_memory_study import InMemoryStudy
from sweeper.search.pruners.build import rungs as pruner_rungs
from sweeper.store import StudyRecord, TrialRecord
from sweeper_dashboard.data import frames, home
from sweeper_dashboard.data.snapshots import Snapshot

__all__ = ["InMemoryStudy"]

MOST_POINTS = 4_000
"""Points of a chart: more are slow to draw and cannot be told apart."""

MOST_IN_PICTURE = 800
MOST_BARS = 1_000
MOST_AT_RUNGS = 600
_BEST_SHARE = 0.25
_LONGEST_TEXT = 40

_PRUNER: TypeAdapter[Pruner] = TypeAdapter(Pruner)


def sampled(numbers: Sequence[int], most: int, first: Iterable[int] = ()) -> list[int]:
    """Return at most ``most`` of the trials, in order: those of ``first``, and an even sample of the others."""
    chosen = dict.fromkeys(number for number in first if number in set(numbers))
    chosen = dict.fromkeys(list(chosen)[:most])
    others = [number for number in numbers if number not in chosen]
    room = most - len(chosen)
    if len(others) > room:
        others = [others[round(place)] for place in np.linspace(0, len(others) - 1, max(0, room))]
    return sorted({*chosen, *others})


def some(of: Snapshot, most: int, selected: Collection[int] = ()) -> pd.DataFrame:
    """Return at most ``most`` completed trials: selected ones, the best, and an even sample of the others."""
    table = of.table
    done = table[table["value"].notna()]
    best = done.sort_values("value", ascending=of.direction == "minimize")["trial"]
    chosen = sampled(done["trial"].tolist(), most, [*selected, *best[: int(most * _BEST_SHARE)]])
    return done[done["trial"].isin(chosen)]


def best_so_far(of: Snapshot, most: int = MOST_POINTS) -> pd.Series[Any]:
    """Return the best value up to each trial, by trial number; only its changes if there are too many."""
    done = of.table[of.table["value"].notna()].set_index("trial")["value"]
    best = done.cummin() if of.direction == "minimize" else done.cummax()
    if len(best) > most:
        best = best[(best != best.shift()) | (best.index == best.index[-1])]
    return best


def picture(
    of: Snapshot, names: Sequence[str], selected: Collection[int] = (), most: int = MOST_IN_PICTURE
) -> InMemoryStudy:
    """Return completed trials in the form that Optuna's charts take."""
    chosen = some(of, most, selected)["trial"]
    evaluation = of.record.config.get("evaluation", {})
    return InMemoryStudy(
        [of.trials[int(number)] for number in chosen],
        names,
        metric=clean(of.metric),
        direction=of.direction,
        objectives=evaluation.get("objectives", ()),
        text=_text,
    )


def _text(value: Any) -> str:
    shown = clean(value)
    return escape(shown if len(shown) <= _LONGEST_TEXT else shown[:_LONGEST_TEXT] + "…", quote=False)


def drawable(of: Snapshot) -> list[str]:
    """Return the hyperparameters that differ between trials, TRL's own left out."""
    held = {name for trial in of.trials.values() for name in trial.parameters} if of.trials else set()
    return [name for name in of.varied if name in held]


def metric_names(of: Snapshot, numbers: Sequence[int]) -> list[str]:
    """Return the metrics that trials report, the deciding one first."""
    points = curve_rows(of, numbers[:8])
    return sorted(set(points["metric"]), key=lambda name: (name != of.metric, name))


def curve_rows(of: Snapshot, numbers: Collection[int], metrics: Collection[str] = ()) -> pd.DataFrame:
    """Return reported values: ``trial``, ``step``, ``metric``, ``value``, ``seconds``."""
    with home.database() as database:
        return frames.points(database.metrics.curves(of.record.name, [int(n) for n in numbers], metrics))


def curves(
    of: Snapshot, metric: str, selected: Sequence[int], most_points: int = MOST_POINTS
) -> tuple[pd.DataFrame, int]:
    """Return the curves to draw, with a column for every axis, and how many trials reported anything.

    Drawn are selected, running, best and latest trials, and an even sample of the others; long curves are thinned.
    """
    table = of.table
    numbers = table.loc[table["steps"] > 0, "trial"].tolist()
    running = table.loc[table["outcome"] == "running", "trial"]
    first = [*selected, *running, *of.leaders["trial"][:12], *reversed(numbers[-8:])]
    chosen = sampled(numbers, _curves_at_once(of, most_points), first)
    rows = curve_rows(of, chosen, [metric])
    return _thinned(with_axes(of, rows), most_points), len(numbers)


def _curves_at_once(of: Snapshot, most_points: int) -> int:
    """Return how many curves fit, each with 10 to 40 points."""
    points = int(of.record.config.get("evaluation", {}).get("points", 20))
    return max(20, most_points // max(10, min(points, 40)))


def _thinned(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """Return rows with every n-th point of each curve, and the last of each."""
    stride = math.ceil(len(rows) / most) if len(rows) > most else 1
    if stride == 1:
        return rows
    place = rows.groupby("trial").cumcount(ascending=False)
    return rows[place % stride == 0]


def with_axes(of: Snapshot, rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows with ``epoch``, ``tokens`` and ``time`` beside their ``step``.

    Epochs and tokens are spread evenly over a trial's steps, and so is the time if no seconds were stored.
    """
    per = {number: _per_step(of.trials[number]) for number in rows["trial"].unique() if number in of.trials}
    each = rows["trial"].map(lambda number: per.get(number, (math.nan,) * 3))
    epochs, tokens, seconds = (each.map(lambda of_trial, at=at: of_trial[at]) for at in range(3))
    return rows.assign(
        epoch=rows["step"] * epochs,
        tokens=rows["step"] * tokens,
        time=rows["seconds"].fillna(rows["step"] * seconds),
    )


def _per_step(trial: TrialRecord) -> tuple[float, float, float]:
    """Return the epochs, tokens and seconds per step."""
    epochs = trial.parameters.get("epochs")
    total = trial.total_steps or math.nan
    taken = trial.steps or math.nan
    planned = epochs / total if isinstance(epochs, int | float) else math.nan
    return planned, (trial.tokens or math.nan) / taken, (trial.train_seconds or math.nan) / taken


def bars(of: Snapshot, most: int = MOST_BARS) -> pd.DataFrame:
    """Return when the latest trials trained, each on the first free lane of its device."""
    now = datetime.now(UTC)
    rows, busy = [], dict[str, list[datetime]]()
    for trial in list(of.trials.values())[-most:]:
        ended = max(trial.finished_at or now, trial.started_at)  # the clock may have been set back
        lanes = busy.setdefault(trial.device, [])
        lane = next((place for place, until in enumerate(lanes) if until <= trial.started_at), len(lanes))
        lanes[lane : lane + 1] = [ended]
        rows.append((trial.number, f"{clean(trial.device)}, slot {lane}", trial.started_at, ended))
    table = pd.DataFrame.from_records(rows, columns=["trial", "lane", "begun", "ended"])
    whole = table.merge(of.table, on="trial")
    order = [f"{clean(device)}, slot {lane}" for device, lanes in sorted(busy.items()) for lane in range(len(lanes))]
    return whole.sort_values("lane", key=lambda of_lane: of_lane.map(order.index), kind="stable")


def rungs(of: Snapshot) -> tuple[int, ...]:
    """Return the rungs of the study's pruner, in per cent of a trial's training."""
    return pruner_rungs(pruner_of(of.record))


def pruner_of(study: StudyRecord) -> Pruner:
    """Return the pruner of a stored study; none if its configuration is of another version of sweeper."""
    try:
        return _PRUNER.validate_python(study.config.get("search", {}).get("pruner", "auto"))
    except (ValidationError, AttributeError):
        return NoPruner()


def reached(of: Snapshot, rungs: Sequence[int], selected: Collection[int] = ()) -> pd.DataFrame:
    """Return the values of trials at each rung: ``trial``, ``rung``, ``value``, ``continued``."""
    table = of.table
    begun = table.loc[(table["planned steps"] > 0) & (table["steps"] > 0), "trial"].tolist()
    chosen = sampled(begun, MOST_AT_RUNGS, [*selected, *of.leaders["trial"][:50]])
    rows = curve_rows(of, chosen, [of.metric]).merge(table[["trial", "planned steps", "steps"]], on="trial")
    rows = rows.assign(percent=(100 * rows["step"] / rows["planned steps"]).round())
    found = []
    for rung, after in pairwise([*rungs, 101]):
        there = rows[rows["percent"] >= rung].drop_duplicates("trial")
        further = rows[rows["percent"] >= after].drop_duplicates("trial")["trial"] if after <= 100 else ()
        ends = there["steps"] >= there["planned steps"] if after > 100 else there["trial"].isin(further)
        found.append(there.assign(rung=rung, continued=ends)[["trial", "rung", "value", "continued"]])
    return (
        pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=["trial", "rung", "value", "continued"])
    )
