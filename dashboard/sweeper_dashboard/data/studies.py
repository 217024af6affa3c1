"""Studies: state, results and cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import yaml

from sweeper.config.evaluation import direction
from sweeper.redact import clean
from sweeper.registry.labels import valid_tags
from sweeper.store import Action, Database, StudyRecord, StudyState, TrialRecord
from sweeper.study.orders import extra_trials, state_of
from sweeper_dashboard.data import frames, home
from sweeper_dashboard.data.snapshots import Snapshot, snapshot

__all__ = ["StudyState"]

SPARKS = 40
"""Points of a sparkline."""

LATEST_EVENTS = 500

_ALIVE = (StudyState.RUNNING, StudyState.PAUSED)
_OPEN = ("running", "interrupted", "paused")


@dataclass(frozen=True)
class Proof:
    """The test score of the study's best trial beside its base model's, with the difference's interval."""

    metric: str
    trial: int
    score: float
    base: float | None
    difference: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class _Spent:
    """Totals of the trials of a study."""

    outcomes: dict[str, int]
    best: float | None
    best_so_far: tuple[float, ...]
    epochs: float
    train_seconds: float
    tokens: int


@dataclass(frozen=True)
class StudyProgress(_Spent):
    """The state of a study, and what it has spent.

    Attributes:
        name: As stored; clean it before it is shown.
        state: Interrupted also if its process was killed.
        metric: Decides the search, on the validation split.
        objectives: Further values to minimize; with any there is no single best trial.
        goal: The value that the metric should reach, if any.
        done: Trials that have ended, interrupted and paused ones left out.
        n_trials: Trials in the budget, and those that users ordered in addition.
        outcomes: Trials by outcome; ``running`` for those that have none.
        best: The best single value; optimistic, because the best of many is partly luck.
        best_so_far: The best value after each completed trial, thinned.
        proof: The test scores; None before the search has ended.
        epochs: Epochs trained by all trials.
        max_epochs: No trial starts beyond these; None for no limit.
        train_seconds: Device seconds of all trials; trials that share passes count their share.
        timeout_s: No trial starts later than this in a run; None for no limit.
        eta_s: Seconds until the search ends at the pace since its last start, if known.
        tags: As stored.
    """

    name: str
    state: StudyState
    metric: str
    direction: str
    objectives: tuple[str, ...]
    goal: float | None
    done: int
    n_trials: int
    proof: Proof | None
    max_epochs: float | None
    timeout_s: float | None
    eta_s: float | None
    started_at: datetime
    ended_at: datetime | None
    tags: tuple[str, ...]
    archived: bool

    @property
    def running(self) -> bool:
        """Whether a process is running it, paused or not."""
        return self.state in _ALIVE


@dataclass(frozen=True)
class Study:
    """One study.

    Attributes:
        snapshot: Its trials at one moment.
        scores: Final scores of the base model and of trials, with intervals.
        registered: (adapter and version, trial number) of every version registered from it.
        events: The latest events.
    """

    standing: StudyProgress
    snapshot: Snapshot
    scores: pd.DataFrame
    registered: tuple[tuple[str, int], ...]
    events: pd.DataFrame

    @property
    def constant(self) -> str:
        """The other hyperparameters as one line."""
        return frames.constant(self.snapshot.parameters, self.snapshot.varied)

    @property
    def searched(self) -> str:
        """The preset, and the reasons for it."""
        space = self.snapshot.record.space
        return clean("\n".join([f"preset: {space.get('preset')}", *map(str, space.get("reasons", ()))]))

    @property
    def file_text(self) -> str:
        """The study file as it was run."""
        return clean(self.snapshot.record.file_text)

    @property
    def resolved(self) -> str:
        """The study with every default, as YAML."""
        return clean(yaml.safe_dump(self.snapshot.record.config, sort_keys=False, allow_unicode=True))

    def scored(self, split: str) -> list[int]:
        """Return the trials scored on ``split``: registered ones first, then in validation order."""
        numbers = self.scores.loc[self.scores["split"] == split, "trial"].dropna()
        winners = {number for _, number in self.registered}
        return sorted(dict.fromkeys(int(number) for number in numbers), key=lambda number: number not in winners)


def study_names() -> list[str]:
    """Return the names of all studies as stored, the latest first."""
    with home.database() as database:
        return [record.name for record in sorted(database.studies.all(), key=lambda r: r.started_at, reverse=True)]


def studies() -> list[StudyProgress]:
    """Return the state of every study, the latest first."""
    with home.database() as database:
        found = [_standing(database, snapshot(database, record)) for record in database.studies.all()]
    return sorted(found, key=lambda standing: standing.started_at, reverse=True)


def study(name: str) -> Study:
    """Return one study.

    Raises:
        StudyStateError: If it does not exist; the message names the nearest.
    """
    with home.database() as database:
        of = snapshot(database, database.studies.get(name))
        evaluations, events = database.evaluations.all(name), database.events.all(name, limit=LATEST_EVENTS)
        adapters = database.adapters.all()
        standing = _standing(database, of)
    return Study(
        standing=standing,
        snapshot=of,
        scores=frames.scores(evaluations),
        registered=tuple((clean(f"{a.name} v{a.version}"), a.number) for a in adapters if a.study == name),
        events=frames.events(events),
    )


def examples(name: str, number: int, split: str, metric: str) -> pd.DataFrame:
    """Return the examples of a trial beside those of its base model, with texts and both scores by ``metric``."""
    with home.database() as database:
        bases = {(of.number, of.split): of.base for of in database.evaluations.all(name)}
        base = database.evaluations.examples(name, None, split, bases.get((number, split), ""))
        return frames.pairs(base, database.evaluations.examples(name, number, split), metric)


def tag(names: Iterable[str], tags: Iterable[str], actor: str, instead_of: Iterable[str] = ()) -> str:
    """Tag studies, replacing the tags of ``instead_of``, and return a message.

    Raises:
        UserError: If a tag is invalid, or a study would have too many.
    """
    given, former, names = valid_tags(tags), set(instead_of), list(names)
    with home.changing() as database:
        for name in names:
            kept = [tag for tag in database.studies.get(name).tags if tag not in former]
            words = valid_tags([*kept, *given])
            database.studies.set_tags(name, words, _action(actor, "tag", name, f"tags: {', '.join(words) or 'none'}"))
    return clean(f"Tags of {', '.join(names)} saved.")


def archive(names: Iterable[str], *, archived: bool, actor: str) -> str:
    """Archive or unarchive studies, and return a message."""
    word, names = "archive" if archived else "unarchive", list(names)
    with home.changing() as database:
        for name in names:
            database.studies.archive(name, _action(actor, word, name, f"{word}d"), archived=archived)
    return clean(f"{word.capitalize()}d {', '.join(names)}.")


def _action(actor: str, kind: str, study: str, message: str) -> Action:
    return Action(at=datetime.now(UTC), actor=actor, kind=kind, message=message, study=study)


def _standing(database: Database, of: Snapshot) -> StudyProgress:
    # The stored configuration may be of another version of sweeper, so it is read as plain values.
    record, found = of.record, of.trials.values()
    spent = of.once("spent", lambda: _spent(of))
    evaluation, search = record.config.get("evaluation") or {}, record.config.get("search") or {}
    state = state_of(database, record)
    n_trials = search.get("n_trials", len(found)) + extra_trials(database, record.name)
    return StudyProgress(
        **vars(spent),
        name=record.name,
        state=state,
        metric=clean(of.metric),
        direction=of.direction,
        objectives=tuple(clean(name) for name in evaluation.get("objectives", ())),
        goal=evaluation.get("goal"),
        done=sum(count for outcome, count in spent.outcomes.items() if outcome not in _OPEN),
        n_trials=n_trials,
        proof=_proof(database, record, evaluation),
        max_epochs=search.get("max_epochs_total"),
        timeout_s=search.get("timeout"),
        eta_s=_eta_s(record, found, n_trials, search.get("timeout")) if state is StudyState.RUNNING else None,
        started_at=record.started_at,
        ended_at=record.ended_at,
        tags=tuple(record.tags),
        archived=record.archived_at is not None,
    )


def _spent(of: Snapshot) -> _Spent:
    found = of.trials.values()
    best = _best_so_far([trial.value for trial in found if trial.value is not None], of.direction)
    return _Spent(
        outcomes=dict(Counter(frames.outcome(trial) for trial in found)),
        best=best[-1] if best else None,
        best_so_far=_thinned(best),
        epochs=sum(trial.epochs_trained for trial in found),
        train_seconds=sum(trial.train_seconds for trial in found),
        tokens=sum(trial.tokens for trial in found),
    )


def _best_so_far(values: Sequence[float], direction: str) -> list[float]:
    found = pd.Series(values, dtype=float)
    return list(found.cummin() if direction == "minimize" else found.cummax())


def _thinned(values: Sequence[float]) -> tuple[float, ...]:
    """Return at most ``SPARKS`` of the values, evenly spread, the last included."""
    if len(values) <= SPARKS:
        return tuple(values)
    return tuple(values[round(place * (len(values) - 1) / (SPARKS - 1))] for place in range(SPARKS))


def _eta_s(record: StudyRecord, found: Collection[TrialRecord], n_trials: int, timeout_s: float | None) -> float | None:
    """Return the seconds until the last trial ends or the time limit, at the pace since the study's last start.

    Running trials count by the share of their steps.
    """
    elapsed_s = max(0.0, (datetime.now(UTC) - record.started_at).total_seconds())  # the clock may have been put back
    ended = [trial for trial in found if trial.outcome is not None and not trial.outcome.is_open]
    recent = sum(trial.finished_at is not None and trial.finished_at >= record.started_at for trial in ended)
    under_way = sum(trial.steps / trial.total_steps for trial in found if trial.outcome is None and trial.total_steps)
    if recent + under_way <= 0:
        return None
    pace_s = elapsed_s / (recent + under_way)
    left_s = max(0.0, n_trials - len(ended) - under_way) * pace_s
    return left_s if timeout_s is None else min(left_s, max(0.0, timeout_s - elapsed_s))


def _proof(database: Database, record: StudyRecord, evaluation: dict[str, Any]) -> Proof | None:
    """Return the registered trial's, else the best, score on the first test metric, beside the base model's."""
    if record.state in _ALIVE:
        return None
    metric = next(iter(evaluation.get("metrics", ())), None)
    found = [of for of in database.evaluations.all(record.name) if of.split == "test"]
    scores = {(of.number, of.base): score for of in found for score in of.scores if score.metric == metric}
    tuned = {key: score for key, score in scores.items() if key[0] is not None}
    if metric is None or not tuned:
        return None
    winners = [adapter.number for adapter in database.adapters.all() if adapter.study == record.name]
    choose = min if direction(metric) == "minimize" else max
    (number, base), score = choose(
        ((key, score) for key, score in tuned.items() if not winners or key[0] in winners),
        key=lambda item: item[1].score,
        default=next(iter(tuned.items())),
    )
    assert number is not None
    bare = scores.get((None, base))
    return Proof(
        metric=clean(metric),
        trial=number,
        score=score.score,
        base=None if bare is None else bare.score,
        difference=score.diff_to_base,
        low=score.diff_low,
        high=score.diff_high,
    )


def remaining(eta_s: float) -> str:
    """Return a duration as text."""
    return str(timedelta(seconds=round(eta_s)))
