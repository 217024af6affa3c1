"""Studies: where each stands, and one of them whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import pandas as pd
from sweeper_dashboard.data import frames, home

from sweeper.cli.output import clean
from sweeper.config.evaluation import direction
from sweeper.store import StudyRecord, StudyState, TrialRecord


@dataclass(frozen=True)
class Standing:
    """Where a study stands and what it has spent.

    Attributes:
        name: As stored; clean it before it is shown.
        metric: Decides the search, on the validation split.
        direction: ``minimize`` or ``maximize``.
        objectives: Further aims, all to be small; with any there is no single best trial.
        goal: What the metric should reach; None where the study names nothing.
        done: Trials that have ended, interrupted and paused ones left out.
        n_trials: Trials in the budget.
        outcomes: How many trials ended in which way; ``running`` for those that have not.
        best: The best single value; optimistic, as the best of many is lucky.
        epochs: Epochs trained by all trials.
        max_epochs: No trial starts beyond these; None for no limit.
        train_seconds: Wall-clock seconds that trials trained.
        timeout_s: No trial starts later than this in a run; None for no limit.
    """

    name: str
    state: StudyState
    metric: str
    direction: str
    objectives: tuple[str, ...]
    goal: float | None
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
        """Whether the study says that it runs; a killed process cannot take that back."""
        return self.state is StudyState.RUNNING


@dataclass(frozen=True)
class Study:
    """One study as its page shows it.

    Attributes:
        trials: Every trial, with the hyperparameters that differ.
        leaders: Configurations with a complete trial, best first.
        varied: Names of the hyperparameters that differ between trials.
        constant: The other hyperparameters as one line.
        scores: Final scores of the base model and of trials, with intervals.
        registered: (adapter and version, trial number) of every version this study gave.
        searched: The preset, and why it was picked.
        file_text: The study file as it was run.
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
        numbers = self.scores.loc[self.scores["split"] == split, "trial"].dropna()
        winners = {number for _, number in self.registered}
        return sorted(dict.fromkeys(int(number) for number in numbers), key=lambda number: number not in winners)


def study_names() -> list[str]:
    """Return the names of all studies as stored, the one started last first."""
    with home.database() as database:
        return [record.name for record in sorted(database.studies.all(), key=lambda r: r.started_at, reverse=True)]


def studies() -> list[Standing]:
    """Return where every study stands, the one started last first."""
    with home.database() as database:
        found = [_standing(record, database.trials.all(record.name)) for record in database.studies.all()]
    return sorted(found, key=lambda standing: standing.started_at, reverse=True)


def study(name: str) -> Study:
    """Return one study.

    Raises:
        StudyStateError: If there is none of that name; names the nearest.
    """
    with home.database() as database:
        record, found = database.studies.get(name), database.trials.all(name)
        evaluations, events = database.evaluations.all(name), database.events.all(name)
        adapters = database.adapters.all()
    standing, parameters = _standing(record, found), frames.hyperparameters(found)
    reasons = [f"preset: {record.space.get('preset')}", *map(str, record.space.get("reasons", ()))]
    return Study(
        standing=standing,
        trials=frames.trials(found, parameters),
        leaders=frames.leaders(found, parameters, standing.direction),
        varied=frames.varied(parameters),
        constant=frames.constant(parameters),
        scores=frames.scores(evaluations),
        registered=tuple((clean(f"{a.name} v{a.version}"), a.number) for a in adapters if a.study == name),
        events=frames.events(events),
        searched=clean("\n".join(reasons)),
        file_text=clean(record.file_text),
    )


def curves(name: str, numbers: Iterable[int]) -> pd.DataFrame:
    """Return all that the given trials reported: ``trial``, ``step``, ``metric``, ``value``."""
    with home.database() as database:
        return frames.points(point for number in numbers for point in database.metrics.get(name, number=number))


def examples(name: str, number: int, split: str, metric: str) -> pd.DataFrame:
    """Return the examples of a trial beside those of its base model: texts, and both scores by ``metric``."""
    with home.database() as database:
        bases = {(of.number, of.split): of.base for of in database.evaluations.all(name)}
        base = database.evaluations.examples(name, None, split, bases.get((number, split), ""))
        return frames.pairs(base, database.evaluations.examples(name, number, split), metric)


def _standing(record: StudyRecord, found: tuple[TrialRecord, ...]) -> Standing:
    # The stored configuration may be of another version of sweeper: only what is shown is read.
    evaluation, search = record.config.get("evaluation", {}), record.config.get("search", {})
    metric = str(evaluation.get("metric"))
    values = [trial.value for trial in found if trial.value is not None]
    ended = [frames.outcome(trial) for trial in found]
    best = min if direction(metric) == "minimize" else max
    return Standing(
        name=record.name,
        state=record.state,
        metric=clean(metric),
        direction=direction(metric),
        objectives=tuple(clean(name) for name in evaluation.get("objectives", ())),
        goal=evaluation.get("goal"),
        done=sum(outcome not in ("running", "interrupted", "paused") for outcome in ended),
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
