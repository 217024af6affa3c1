"""Records of the store as data frames for pages and charts: cells cleaned, configurations ranked."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

import pandas as pd

from sweeper.config.trial import Outcome
from sweeper.redact import clean
from sweeper.store import Evaluation, EventRecord, Example, TrialRecord

_BEGINS_FORMULA = ("=", "+", "-", "@", "\t", "\N{REPLACEMENT CHARACTER}")  # the last was a carriage return, perhaps
_NUMBERS = re.compile(r"[-+]?inf|[-+]?[\d.]+(e[-+]?\d+)?([ %(),to]+[-+]?[\d.]+(e[-+]?\d+)?)*[ )%]*")

BASE = "base model"
BEGINS = "started from"
_TRIAL = ("trial", "outcome", "value", "kind", "steps", "planned steps", "seconds", "reason")
_LEADER = ("trial", "mean", "seeds", "diverged", "best seed", "confirmed")


def frame(rows: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> pd.DataFrame:
    """Return rows as a frame with ``columns``, even if it is empty, and then any others."""
    cells = [{name: cell(value) for name, value in row.items()} for row in rows]
    return pd.DataFrame(cells, columns=list(dict.fromkeys([*columns, *(name for row in cells for name in row)])))


def cell(value: Any) -> Any:
    """Return a value as a table cell: numbers and times unchanged, everything else as clean text."""
    if value is None or isinstance(value, bool | int | float | datetime):
        return value
    return inert(clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)))


def inert(text: str) -> str:
    """Return text that no spreadsheet takes for a formula, because tables can be saved as CSV.

    See owasp.org/www-community/attacks/CSV_Injection. Numbers are left alone.
    """
    return f"'{text}" if text.startswith(_BEGINS_FORMULA) and not _NUMBERS.fullmatch(text) else text


def flat(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return hyperparameters with TRL's own fields among them, named ``trl.NAME``."""
    own = {name: value for name, value in parameters.items() if name != "trl"}
    further = parameters.get("trl")
    return own | ({f"trl.{name}": value for name, value in further.items()} if isinstance(further, Mapping) else {})


def hyperparameters(found: Iterable[TrialRecord]) -> pd.DataFrame:
    """Return the hyperparameters of trials, one row each.

    If any trial started from another's weights, those are one more column: they make it another configuration.
    """
    rows, trials = [], list(found)
    begun = any(trial.initial is not None for trial in trials)
    for trial in trials:
        weights = "base model" if trial.initial is None else f"trial {trial.initial}'s weights"
        rows.append(flat(trial.parameters) | ({BEGINS: weights} if begun else {}))
    table = pd.DataFrame.from_records(rows)
    for name in table.columns:
        if table[name].dtype == object or isinstance(table[name].dtype, pd.StringDtype):
            table[name] = _cells(table[name])
    return table.rename(columns=_named)


def _cells(values: pd.Series[Any]) -> pd.Series[Any]:
    """Return values as cells; equal texts, of which there are many, are cleaned once."""
    known: dict[Any, Any] = {}
    cells = []
    for value in values:
        if isinstance(value, str):
            if value not in known:
                known[value] = cell(value)
            cells.append(known[value])
        else:
            cells.append(None if isinstance(value, float) and math.isnan(value) else cell(value))
    return pd.Series(cells, index=values.index, dtype=object)


def _named(name: str) -> str:
    """Return a hyperparameter's name as a column name that is not taken."""
    return f"{name} (hyperparameter)" if name in (*_TRIAL, *_LEADER) else clean(name)


def varied(parameters: pd.DataFrame) -> list[str]:
    """Return the names of the hyperparameters that differ between trials."""
    return [
        name
        for name, values in parameters.items()
        if (values.map(repr).nunique() if values.dtype == object else values.nunique(dropna=False)) > 1
    ]


def constant(parameters: pd.DataFrame, different: list[str]) -> str:
    """Return the hyperparameters that all trials share, as one line."""
    if parameters.empty:
        return ""
    same = parameters.drop(columns=different).iloc[0].dropna()
    return ", ".join(f"{name} {value}" for name, value in same.items())


def trials(found: Iterable[TrialRecord], parameters: pd.DataFrame, different: list[str]) -> pd.DataFrame:
    """Return trials with their outcomes, reasons, and the hyperparameters that differ between them."""
    rows = [(t.number, outcome(t), t.value, _kind(t), t.steps, t.total_steps, t.train_seconds, t.reason) for t in found]
    table = pd.DataFrame.from_records(rows, columns=list(_TRIAL))
    table["value"] = table["value"].astype(float)
    table["reason"] = _cells(table["reason"].astype(object))
    return table.join(parameters[different])


def _kind(trial: TrialRecord) -> str:
    if trial.confirms is not None:
        return f"repeat of {trial.confirms}"
    return trial.kind.value if trial.clones is None else f"clone of {trial.clones}"


def outcome(trial: TrialRecord) -> str:
    """Return the outcome of a trial, ``running`` if it has none."""
    return "running" if trial.outcome is None else trial.outcome.value


def leaders(table: pd.DataFrame, different: list[str], direction: str) -> pd.DataFrame:
    """Rank configurations as the search does: stable ones first, then confirmed ones, then by mean over seeds.

    Args:
        table: All trials of a study; trials with equal hyperparameters are one configuration.
        different: The hyperparameters that differ between them.
        direction: ``minimize`` or ``maximize``.
    """
    of = table.assign(
        done=table["value"].notna(),
        broken=table["outcome"] == Outcome.DIVERGED.value,
        again=table["kind"].str.startswith("repeat of") & table["value"].notna(),
    )
    whole = of.groupby([of[name].map(repr) for name in different] or [0] * len(of), sort=False, dropna=False)
    group = whole.ngroup()
    done = of[of["done"]].groupby(group[of["done"]], sort=False)
    ranked = pd.DataFrame(
        {
            "trial": done["trial"].first(),
            "mean": done["value"].mean(),
            "seeds": done["value"].count(),
            "diverged": of.groupby(group)["broken"].sum(),
            "best seed": done["value"].min() if direction == "minimize" else done["value"].max(),
            "confirmed": done["again"].any(),
        }
    ).dropna(subset=["trial"])
    first = of.groupby(group, sort=False)[different].first() if different else pd.DataFrame(index=ranked.index)
    ranked = ranked.join(first).astype({"trial": int, "seeds": int, "diverged": int})
    better = ranked["mean"] if direction == "minimize" else -ranked["mean"]
    order = ranked.assign(unstable=ranked["diverged"] > 0, single=~ranked["confirmed"].astype(bool), better=better)
    order = order.sort_values(["unstable", "single", "better", "trial"])
    return ranked.loc[order.index].drop(columns="confirmed").reset_index(drop=True)


def scores(evaluations: Iterable[Evaluation]) -> pd.DataFrame:
    """Return final scores by subject, split and metric; ``trial`` is empty for the base model."""
    rows = [
        {"subject": of.subject, "trial": of.number, "split": of.split} | asdict(score)
        for of in evaluations
        for score in of.scores
    ]
    columns = ("score", "low", "high", "diff_to_base", "diff_low", "diff_high")
    return frame(rows, ["subject", "trial", "split", "metric", *columns]).astype(dict.fromkeys(columns, float))


def events(found: Iterable[EventRecord]) -> pd.DataFrame:
    """Return events, oldest first."""
    rows = [{"at (UTC)": of.at, "kind": of.kind, "trial": of.number, "message": of.message} for of in found]
    return frame(rows, ["at (UTC)", "kind", "trial", "message"])


def points(found: list[tuple[int, int, str, float | None, float | None]]) -> pd.DataFrame:
    """Return reported values: ``trial``, ``step``, ``metric``, ``value``, ``seconds``; values may be infinite."""
    table = pd.DataFrame.from_records(found, columns=["trial", "step", "metric", "value", "seconds"])
    return table.astype({"value": float, "seconds": float})


def pairs(base: Iterable[Example], tuned: Iterable[Example], metric: str) -> pd.DataFrame:
    """Return the examples that both subjects answered, with texts and scores by ``metric``."""
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
