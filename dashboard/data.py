"""All that the pages show, read from a sweeper home; the only file that calls sweeper.

Every text is cleaned of control characters here. It is still text of users and models: pages show it as plain text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from statistics import fmean
from typing import Any

import pandas as pd

from sweeper.cli.output import clean
from sweeper.config.evaluation import direction
from sweeper.config.trial import Outcome
from sweeper.errors import DatabaseError, SweeperError
from sweeper.paths import Home
from sweeper.registry import AdapterVersion, Registry
from sweeper.store import Database, Score, StudyRecord, StudyState, TrialRecord

__all__ = ["SweeperError", "clean"]

BASE = "base model"
_MIB = 1024**2


class NothingYet(DatabaseError):
    """The home holds no database, so no study was ever run in it."""


@dataclass(frozen=True)
class Standing:
    """Where a study stands and what it has spent.

    Attributes:
        metric: Decides the search, on the validation split.
        direction: ``minimize`` or ``maximize``.
        objectives: Further aims; with any of them there is no single best trial.
        done: Trials that have ended, interrupted ones left out.
        n_trials: Trials in the budget.
        outcomes: How many trials ended in which way; ``running`` for those that have not.
        best: The best single value; optimistic, as the best of many is lucky.
        epochs: Epochs trained by all trials.
        train_seconds: Wall-clock seconds that trials trained.
    """

    name: str
    state: StudyState
    metric: str
    direction: str
    objectives: tuple[str, ...]
    done: int
    n_trials: int
    outcomes: dict[str, int]
    best: float | None
    epochs: float
    max_epochs: float | None
    train_seconds: float
    timeout_s: float | None
    started_at: datetime
    ended_at: datetime | None

    @property
    def running(self) -> bool:
        """Whether the study says that it runs."""
        return self.state is StudyState.RUNNING


@dataclass(frozen=True)
class Study:
    """One study as its page shows it.

    Attributes:
        trials: Every trial, with its hyperparameters in columns.
        leaders: Configurations with a complete trial, best first: confirmed ones before those seen once.
        varied: Names of the hyperparameters that differ between trials, as columns of ``trials`` and ``leaders``.
        constant: The other hyperparameters as one line.
        scores: Final scores of the base model and of trials, with intervals.
        registered: (adapter and version, trial number) of every version this study gave.
        searched: Preset and ranges, and why.
    """

    standing: Standing
    trials: pd.DataFrame
    leaders: pd.DataFrame
    varied: list[str]
    constant: str
    scores: pd.DataFrame
    registered: tuple[tuple[str, int], ...]
    events: pd.DataFrame
    searched: str
    file_text: str

    def scored(self, split: str) -> list[int]:
        """Return the trials scored on ``split``: registered ones first, then in validation order."""
        numbers = self.scores.loc[(self.scores["split"] == split) & self.scores["trial"].notna(), "trial"]
        winners = {number for _, number in self.registered}
        return sorted(dict.fromkeys(int(number) for number in numbers), key=lambda number: number not in winners)


def home_folder() -> str:
    """Return the folder of the home that is shown."""
    return clean(Home.current().folder)


def study_names() -> list[str]:
    """Return the names of all studies as stored, the one started last first."""
    with _database() as database:
        return [record.name for record in sorted(database.studies.all(), key=lambda r: r.started_at, reverse=True)]


def studies() -> list[Standing]:
    """Return where every study stands, the one started last first."""
    with _database() as database:
        found = [_standing(record, database.trials.all(record.name)) for record in database.studies.all()]
    return sorted(found, key=lambda standing: standing.started_at, reverse=True)


def study(name: str) -> Study:
    """Return one study.

    Raises:
        StudyStateError: If there is none of that name.
    """
    with _database() as database:
        record, found = database.studies.get(name), database.trials.all(name)
        evaluations, events = database.evaluations.all(name), database.events.all(name)
        adapters = database.adapters.all()
    standing = _standing(record, found)
    parameters = [_parameters(trial) for trial in found]
    varied, constant = _split(parameters)
    shown = [{name: each.get(name) for name in varied} for each in parameters]
    scores = [_score(e.number, e.split, score) for e in evaluations for score in e.scores]
    return Study(
        standing=standing,
        trials=_frame([_trial(trial) | each for trial, each in zip(found, shown, strict=True)], _trial_columns(varied)),
        leaders=_frame(_leaders(found, shown, standing.direction), ["trial", "mean", "runs", "diverged", "best seed"]),
        varied=varied,
        constant=constant,
        scores=_frame(scores, _SCORE_COLUMNS),
        registered=tuple((clean(f"{a.name} v{a.version}"), a.number) for a in adapters if a.study == name),
        events=_frame([asdict(event) for event in events], ["at", "kind", "number", "message"]),
        searched=clean(
            "\n".join([f"preset: {record.space.get('preset')}", *map(str, record.space.get("reasons", ()))])
        ),
        file_text=clean(record.file_text),
    )


def curves(name: str, numbers: Iterable[int]) -> pd.DataFrame:
    """Return all that the given trials reported: ``trial``, ``step``, ``metric``, ``value``, also where not finite."""
    with _database() as database:
        points = [point for number in numbers for point in database.metrics.get(name, number=number)]
    rows = [{"trial": p.number, "step": p.step, "metric": p.name, "value": p.value} for p in points]
    return _frame(rows, ["trial", "step", "metric", "value"])


def examples(name: str, number: int, split: str, metric: str) -> pd.DataFrame:
    """Return the examples of a trial beside the base model's: texts, and both scores by ``metric``."""
    with _database() as database:
        base = {example.index: example for example in database.evaluations.examples(name, None, split)}
        tuned = database.evaluations.examples(name, number, split)
    rows = [
        {
            "example": example.index,
            "prompt": example.prompt,
            "reference": example.reference,
            BASE: base[example.index].generated,
            "trial": example.generated,
            "base score": base[example.index].scores.get(metric),
            "trial score": example.scores.get(metric),
        }
        for example in tuned
        if example.index in base
    ]
    return _frame(rows, ["example", "prompt", "reference", BASE, "trial", "base score", "trial score"])


@dataclass(frozen=True)
class Adapter:
    """One registered version: a row of the list, where it came from, and its scores."""

    row: dict[str, Any]
    lineage: pd.DataFrame
    scores: pd.DataFrame


def adapters() -> list[Adapter]:
    """Return every registered adapter version, the newest first."""
    with _database() as database:
        found = Registry(Home.current(), database).all()
    return [_adapter(version) for version in sorted(found, key=lambda version: version.created_at, reverse=True)]


@contextmanager
def _database() -> Iterator[Database]:
    path = Home.current().database
    if not path.exists():
        raise NothingYet(f"no database at {path}")
    with Database.open(path, create=False, busy_timeout_s=5) as database:
        yield database


def _standing(record: StudyRecord, found: tuple[TrialRecord, ...]) -> Standing:
    # The stored configuration may be of another version of sweeper: only what is shown is read.
    evaluation, search = record.config.get("evaluation", {}), record.config.get("search", {})
    metric = str(evaluation.get("metric"))
    values = [trial.value for trial in found if trial.value is not None]
    ended = [trial.outcome.value if trial.outcome else "running" for trial in found]
    best = min if direction(metric) == "minimize" else max
    return Standing(
        name=record.name,
        state=record.state,
        metric=clean(metric),
        direction=direction(metric),
        objectives=tuple(clean(name) for name in evaluation.get("objectives", ())),
        done=sum(outcome not in ("running", Outcome.INTERRUPTED) for outcome in ended),
        n_trials=search.get("n_trials", len(found)),
        outcomes={outcome: ended.count(outcome) for outcome in dict.fromkeys(ended)},
        best=best(values, default=None),
        epochs=sum(trial.epochs_trained for trial in found),
        max_epochs=search.get("max_epochs_total"),
        train_seconds=sum(trial.train_seconds for trial in found),
        timeout_s=search.get("timeout"),
        started_at=record.started_at,
        ended_at=record.ended_at,
    )


def _trial(trial: TrialRecord) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "outcome": trial.outcome.value if trial.outcome else "running",
        "value": trial.value,
        "kind": trial.kind.value if trial.confirms is None else f"again as {trial.confirms}",
        "steps": trial.steps,
        "planned steps": trial.total_steps,
        "seconds": trial.train_seconds,
        "reason": trial.reason,
    }


def _trial_columns(varied: list[str]) -> list[str]:
    return ["trial", "outcome", "value", "kind", "steps", "planned steps", "seconds", *varied, "reason"]


def _parameters(trial: TrialRecord) -> dict[str, Any]:
    """Return hyperparameters by name as table cells; TRL's own fields among them carry their class's name."""
    flat = {name: value for name, value in trial.parameters.items() if name != "trl"}
    flat |= {f"trl.{name}": value for name, value in (trial.parameters.get("trl") or {}).items()}
    return {clean(name): _cell(value) for name, value in flat.items()}


def _split(parameters: list[dict[str, Any]]) -> tuple[list[str], str]:
    """Return the names of what differs between trials, and the rest as one line."""
    values = {name: {repr(each.get(name)) for each in parameters} for each in parameters for name in each}
    varied = [name for name, seen in values.items() if len(seen) > 1]
    constant = {name: parameters[0][name] for name in values if name not in varied}
    return varied, ", ".join(f"{name} {value}" for name, value in constant.items() if value is not None)


def _leaders(found: tuple[TrialRecord, ...], shown: list[dict[str, Any]], direction: str) -> Iterator[dict[str, Any]]:
    """Rank configurations as the search does: stable, confirmed, then by the mean over their seeds."""
    groups: dict[str, list[int]] = {}
    for place, trial in enumerate(found):
        groups.setdefault(json.dumps(trial.parameters, sort_keys=True), []).append(place)
    sign = 1 if direction == "minimize" else -1
    rows = []
    for places in groups.values():
        done = [found[place] for place in places if found[place].value is not None]
        values = [trial.value for trial in done if trial.value is not None]
        if values:
            diverged = sum(found[place].outcome is Outcome.DIVERGED for place in places)
            confirmed = any(trial.confirms is not None for trial in done)
            order = (diverged > 0, not confirmed, sign * fmean(values), done[0].number)
            row = {"trial": done[0].number, "mean": fmean(values), "runs": len(values), "diverged": diverged}
            rows.append((order, row | {"best seed": sign * min(sign * v for v in values)} | shown[places[0]]))
    return (row for _, row in sorted(rows, key=lambda pair: pair[0]))


_SCORE_COLUMNS = ["subject", "trial", "split", *Score.__dataclass_fields__]


def _score(number: int | None, split: str, score: Score) -> dict[str, Any]:
    subject = BASE if number is None else f"trial {number}"
    return {"subject": subject, "trial": number, "split": split} | asdict(score)


def _adapter(version: AdapterVersion) -> Adapter:
    lineage = asdict(version.lineage)
    nested = lineage.pop("hyperparameters")
    facts = lineage | {f"hyperparameters.{name}": value for name, value in nested.items()}
    facts |= {f"sha256 of {name}": value for name, value in version.files.items()}
    scores = [
        {"split": split, "metric": metric} | dict(values)
        for split, metrics in version.scores.items()
        for metric, values in metrics.items()
    ]
    row = {
        "adapter": version.name,
        "version": version.version,
        "stage": version.stage.value,
        "study": version.lineage.study,
        "trial": version.lineage.trial,
        "base model": version.lineage.base_model,
        "MiB": version.bytes / _MIB,
        "registered (UTC)": version.created_at,
    }
    table = [{"what": name, "value": str(_cell(value))} for name, value in facts.items() if value is not None]
    return Adapter(
        row={name: _cell(value) for name, value in row.items()},
        lineage=_frame(table, ["what", "value"]),
        scores=_frame(scores, ["split", "metric", "score", "low", "high", "diff_to_base", "diff_low", "diff_high"]),
    )


def _frame(rows: Iterable[Mapping[str, Any]], columns: list[str]) -> pd.DataFrame:
    """Return rows as a frame that has ``columns`` even where it is empty, and then any further ones."""
    cells = [{name: _cell(value) for name, value in row.items()} for row in rows]
    further = dict.fromkeys(name for row in cells for name in row)
    return pd.DataFrame(cells, columns=list(dict.fromkeys([*columns, *further])))


def _cell(value: Any) -> Any:
    """Return a value as a table holds it: numbers and times as they are, all else as clean text."""
    if value is None or isinstance(value, bool | int | float | datetime):
        return value
    return clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))
