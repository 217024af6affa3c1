"""Records of the store as the frames that pages and charts take: cells cleaned, configurations ranked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime
from statistics import fmean
from typing import Any

import pandas as pd

from sweeper.cli.output import clean
from sweeper.config.trial import Outcome
from sweeper.store import Evaluation, Event, Example, MetricPoint, TrialRecord

BASE = "base model"
_TRIAL = ("trial", "outcome", "value", "kind", "steps", "planned steps", "seconds", "reason")
_LEADER = ("trial", "mean", "seeds", "diverged", "best seed", "confirmed")


def frame(rows: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> pd.DataFrame:
    """Return rows as a frame that has ``columns`` even where it is empty, and then any further ones."""
    cells = [{name: cell(value) for name, value in row.items()} for row in rows]
    return pd.DataFrame(cells, columns=list(dict.fromkeys([*columns, *(name for row in cells for name in row)])))


def cell(value: Any) -> Any:
    """Return a value as a table holds it: numbers and times as they are, all else as clean text."""
    if value is None or isinstance(value, bool | int | float | datetime):
        return value
    return clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def hyperparameters(found: Iterable[TrialRecord]) -> pd.DataFrame:
    """Return the hyperparameters of trials, a row a trial; TRL's own fields begin with ``trl.``."""
    rows = []
    for trial in found:
        own = {name: value for name, value in trial.parameters.items() if name != "trl"}
        further = {f"trl.{name}": value for name, value in (trial.parameters.get("trl") or {}).items()}
        rows.append({_named(name): value for name, value in (own | further).items()})
    return frame(rows, [])


def _named(name: str) -> str:
    """Return a hyperparameter's name as a column that no other column bears."""
    return f"{name} (hyperparameter)" if name in (*_TRIAL, *_LEADER) else clean(name)


def varied(parameters: pd.DataFrame) -> list[str]:
    """Return the names of the hyperparameters that differ between trials."""
    return [name for name in parameters if parameters[name].map(repr).nunique() > 1]


def constant(parameters: pd.DataFrame) -> str:
    """Return the hyperparameters that do not differ, as one line."""
    if parameters.empty:
        return ""
    same = parameters.drop(columns=varied(parameters)).iloc[0].dropna()
    return ", ".join(f"{name} {value}" for name, value in same.items())


def trials(found: Iterable[TrialRecord], parameters: pd.DataFrame) -> pd.DataFrame:
    """Return trials with how they ended and why, and the hyperparameters that differ between them."""
    rows = [
        {
            "trial": trial.number,
            "outcome": outcome(trial),
            "value": trial.value,
            "kind": trial.kind.value if trial.confirms is None else f"again as {trial.confirms}",
            "steps": trial.steps,
            "planned steps": trial.total_steps,
            "seconds": trial.train_seconds,
            "reason": trial.reason,
        }
        for trial in found
    ]
    return frame(rows, _TRIAL).join(parameters[varied(parameters)])


def outcome(trial: TrialRecord) -> str:
    """Return how a trial ended, ``running`` where it has not."""
    return "running" if trial.outcome is None else trial.outcome.value


def leaders(found: Iterable[TrialRecord], parameters: pd.DataFrame, direction: str) -> pd.DataFrame:
    """Rank configurations as the search does: the stable, then the confirmed, then by the mean over their seeds.

    Args:
        found: All trials of a study; those of the same hyperparameters are one configuration.
        parameters: Their hyperparameters, a row a trial.
        direction: ``minimize`` or ``maximize``.
    """
    groups: dict[str, list[tuple[int, TrialRecord]]] = {}
    for place, trial in enumerate(found):
        groups.setdefault(json.dumps(trial.parameters, sort_keys=True), []).append((place, trial))
    rows, places = [], []
    for group in groups.values():
        done = [trial for _, trial in group if trial.value is not None]
        if done:
            rows.append(_leader(done, sum(trial.outcome is Outcome.DIVERGED for _, trial in group), direction))
            places.append(group[0][0])
    ranked = frame(rows, _LEADER)
    ranked = ranked.join(parameters.iloc[places][varied(parameters)].reset_index(drop=True))
    better = ranked["mean"] if direction == "minimize" else -ranked["mean"]
    order = ranked.assign(unstable=ranked["diverged"] > 0, single=~ranked["confirmed"].astype(bool), better=better)
    order = order.sort_values(["unstable", "single", "better", "trial"])
    return ranked.loc[order.index].drop(columns="confirmed").reset_index(drop=True)


def _leader(done: list[TrialRecord], diverged: int, direction: str) -> dict[str, Any]:
    values = [trial.value for trial in done if trial.value is not None]
    return {
        "trial": done[0].number,
        "mean": fmean(values),
        "seeds": len(values),
        "diverged": diverged,
        "best seed": min(values) if direction == "minimize" else max(values),
        "confirmed": any(trial.confirms is not None for trial in done),
    }


def scores(evaluations: Iterable[Evaluation]) -> pd.DataFrame:
    """Return final scores, a row a subject, split and metric; ``trial`` is empty for the base model."""
    rows = [
        {"subject": of.subject, "trial": of.number, "split": of.split} | asdict(score)
        for of in evaluations
        for score in of.scores
    ]
    columns = ("score", "low", "high", "diff_to_base", "diff_low", "diff_high")
    return frame(rows, ["subject", "trial", "split", "metric", *columns]).astype(dict.fromkeys(columns, float))


def events(found: Iterable[Event]) -> pd.DataFrame:
    """Return what happened, oldest first."""
    rows = [{"at (UTC)": of.at, "kind": of.kind, "trial": of.number, "message": of.message} for of in found]
    return frame(rows, ["at (UTC)", "kind", "trial", "message"])


def points(found: Iterable[MetricPoint]) -> pd.DataFrame:
    """Return what trials reported: ``trial``, ``step``, ``metric``, ``value``; values may be NaN or infinite."""
    rows = [{"trial": p.number, "step": p.step, "metric": p.name, "value": p.value} for p in found]
    return frame(rows, ["trial", "step", "metric", "value"])


def pairs(base: Iterable[Example], tuned: Iterable[Example], metric: str) -> pd.DataFrame:
    """Return the examples that both subjects answered, with their texts and their scores by ``metric``."""
    known = {example.index: example for example in base}
    rows = [
        {
            "example": example.index,
            "prompt": example.prompt,
            "reference": example.reference,
            BASE: known[example.index].generated,
            "trial": example.generated,
            "base score": known[example.index].scores.get(metric),
            "trial score": example.scores.get(metric),
        }
        for example in tuned
        if example.index in known
    ]
    return frame(rows, ["example", "prompt", "reference", BASE, "trial", "base score", "trial score"])
