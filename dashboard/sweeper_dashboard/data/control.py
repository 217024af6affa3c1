"""State and orders of a study for the Control page."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd

from sweeper.config.orders import budget_of, values_of
from sweeper.config.pipeline import STAGES, name_to_resume, pipeline_of, stage_name
from sweeper.config.search import duration_s
from sweeper.config.space import Choice, Fixed, FloatRange, IntRange, Range, describe
from sweeper.errors import StudyStateError, UserError
from sweeper.paths import Home
from sweeper.redact import clean
from sweeper.store import Database, Order, OrderKind, OrderState, StudyState, TrialRecord, stored_config
from sweeper.store.trial_files import require_weights
from sweeper.study.orders import await_answer, described, extra_trials, give, is_run, space_of_study, state_of
from sweeper_dashboard.data import frames, home, jobs
from sweeper_dashboard.data.snapshots import snapshot

__all__ = ["OrderKind", "UserError"]

_PATIENCE_S = 1.5
"""Longest wait of a click for the runner's answer; the list of orders shows later ones."""

_TELLING = ("learning_rate", "lora_rank", "lora_alpha", "batch_size", "epochs", "adapter", "model")
"""Hyperparameters that tell open trials apart."""

_TAIL = 40
"""Lines of a failed resume that are shown."""

_started: dict[Path, subprocess.Popen[bytes]] = {}
"""Resumes started by this process, by the folder of the study; of a pipeline stage, of the whole pipeline."""

_starting = threading.Lock()
"""Held while a resume is started, so that two clicks start one."""


@dataclass(frozen=True)
class Field:
    """One parameter of a study's space, as a form field.

    Attributes:
        name: As stored; clean it before it is shown.
        text: Its range in words.
        low: Least value of a number; None for a choice.
        high: Largest value.
        step: The increment of one click.
        choices: The choices; None for a number.
    """

    name: str
    text: str
    low: float | None = None
    high: float | None = None
    step: float | None = None
    choices: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class OpenTrial:
    """A trial that is running, or waiting at a rung or for a slot."""

    number: int
    state: str
    progress: float
    text: str


@dataclass(frozen=True)
class Control:
    """The state of a study, and its orders.

    Attributes:
        runs: Whether a process is running it, which follows orders within a step.
        live: Whether it, or another stage of it, is running or was started here.
        done: Trials that have ended.
        n_trials: Trials in the budget.
        waiting: Orders without an answer.
        under_way: Trials that can be stopped.
        orders: All orders, latest first.
        failed: The end of the output of a failed resume that was started here; None if nothing failed or it runs again.
    """

    state: StudyState
    runs: bool
    live: bool
    done: int
    n_trials: int
    waiting: int
    under_way: tuple[OpenTrial, ...]
    orders: pd.DataFrame
    failed: str | None

    @property
    def paused(self) -> bool:
        """Whether it waits to be resumed."""
        return self.state is StudyState.PAUSED


def control(name: str) -> Control:
    """Return the state of a study and its orders.

    Raises:
        StudyStateError: If it does not exist; the message names the nearest.
    """
    with home.database() as database:
        study = database.studies.get(name)
        trials = tuple(snapshot(database, study).trials.values())
        extra = extra_trials(database, name)
        orders = database.orders.all(name, limit=200)
        state = state_of(database, study)
        runs, live = is_run(database, name), _is_live(database, name)
    alive = state in (StudyState.RUNNING, StudyState.PAUSED)
    open_trials = [trial for trial in trials if trial.outcome is None or trial.outcome.is_open]
    return Control(
        state=state,
        runs=runs,
        live=live,
        done=len(trials) - len(open_trials),
        n_trials=(study.config.get("search") or {}).get("n_trials", len(trials)) + extra,
        waiting=sum(order.state is OrderState.WAITING for order in orders),
        under_way=tuple(_under_way(trial) for trial in open_trials if alive and _may_be_stopped(trial, trials)),
        orders=_orders(orders),
        failed=None if live else _failed(name),
    )


def _may_be_stopped(trial: TrialRecord, trials: tuple[TrialRecord, ...]) -> bool:
    return all(other.restarts != trial.number for other in trials)


def _under_way(trial: TrialRecord) -> OpenTrial:
    values = ((name, trial.parameters.get(name)) for name in _TELLING)
    text = "  ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values
        if isinstance(value, int | float | str)
    )
    state = "running" if trial.outcome is None else f"{trial.outcome}: {trial.reason or ''}"
    return OpenTrial(trial.number, clean(state), min(1.0, trial.steps / max(1, trial.total_steps)), clean(text))


def _orders(orders: tuple[Order, ...]) -> pd.DataFrame:
    rows = (
        {
            "number": order.id,
            "given (UTC)": order.at,
            "by": order.actor,
            "order": described(order),
            "state": order.state.value,
            "answer": order.answer or "",
        }
        for order in orders
    )
    return frames.frame(rows, ["number", "given (UTC)", "by", "order", "state", "answer"])


def fields(name: str) -> list[Field]:
    """Return the parameters that a configuration of the study may set; fixed ones are left out."""
    with home.database() as database:
        space = space_of_study(database.studies.get(name))
    return [_field(each, range_) for each, range_ in space.items() if not isinstance(range_, Fixed)]


def _field(name: str, range_: Range) -> Field:
    text = clean(describe(range_))
    if range_.when:
        text += f"; where {clean(', '.join(f'{parent} is {list(of)}' for parent, of in range_.when.items()))}"
    match range_:
        case Choice():
            return Field(name, text, choices=range_.choice)
        case IntRange():
            return Field(name, text, range_.low, range_.high, range_.step)
        case FloatRange():
            step = range_.low if range_.log else (range_.high - range_.low) / 100
            return Field(name, text, range_.low, range_.high, step or None)
        case _:
            raise TypeError(f"{name} is not searched")


def trial_numbers(name: str) -> list[int]:
    """Return the trials of a study that can be cloned, latest first."""
    with home.database() as database:
        return list(snapshot(database, database.studies.get(name)).trials)[::-1]


def values(name: str, number: int) -> dict[str, Any]:
    """Return a trial's values in the study's space, by name."""
    with home.database() as database:
        space = space_of_study(database.studies.get(name))
        return values_of(space, database.trials.get(name, number).parameters)


def obstacle_to_weights(name: str, number: int, changes: Mapping[str, Any]) -> str | None:
    """Return why a clone of a trial cannot start from its weights, or None if it can."""
    try:
        with home.database() as database:
            require_weights(database, name, Home.current().study(name).trial(number), changes)
    except UserError as error:
        return home.said(error)
    return None


def budget(name: str) -> dict[str, Any]:
    """Return the budget of a study: ``n_trials``, ``timeout`` (seconds), ``max_epochs_total``, and any ``slots``."""
    with home.database() as database:
        return budget_of(stored_config(database.studies.get(name)))


def duration(limit: float | None) -> str:
    """Return a time limit exactly as ``seconds`` reads it; empty for none."""
    return "" if limit is None else f"{Decimal(repr(limit)).normalize():f}s"


def seconds(text: str) -> float | None:
    """Return a time limit such as ``6h`` in seconds; None, for no limit, if the text is empty.

    Raises:
        UserError: If the text is not a duration.
    """
    text = text.strip()
    if not text:
        return None
    try:
        return float(text) if text.replace(".", "", 1).isdecimal() else duration_s(text)
    except ValueError as error:
        raise UserError(str(error)) from error


def order(
    name: str, kind: OrderKind, *, actor: str, number: int | None = None, data: Mapping[str, Any] | None = None
) -> str:
    """Give an order, and return its outcome so far.

    Raises:
        UserError: If it cannot be carried out; the message says why.
    """
    with home.changing() as database:
        given = give(Home.current(), database, name, kind, actor=actor, number=number, data=data)
        answered = await_answer(database, name, given.id, _PATIENCE_S) if given.runs else None
    if answered is not None and answered.state is OrderState.REFUSED:
        raise StudyStateError(answered.answer or "the runner refused the order")
    if answered is not None and answered.state is OrderState.DONE:
        return clean(f"Order {given.id} is done: {answered.answer}.")
    return clean(f"Order {given.id} {given.when}: {given.message}.")


def resume(name: str, *, actor: str) -> str:
    """Resume a paused study, or start a process that resumes one that is not running; of a stage, the whole pipeline.

    Raises:
        UserError: If it is running.
    """
    current = Home.current()
    with home.changing() as database:
        state = state_of(database, database.studies.get(name))
    if state in (StudyState.RUNNING, StudyState.PAUSED):
        return order(name, OrderKind.RESUME, actor=actor)
    whole = name_to_resume(current.study(name))
    with _starting:
        with home.changing() as database:
            if _is_live(database, name):
                return clean(f"{whole} is already being resumed.")
            database.events.add(name, "resume", f"started from the dashboard by {actor}")
        _started[current.study(whole).folder] = _start(current, whole)
    return clean(f"Resuming {whole}; the first step takes a moment while the base model loads.")


def _start(current: Home, name: str) -> subprocess.Popen[bytes]:
    log = current.study(name).resume_log
    log.unlink(missing_ok=True)  # a resume of another dashboard may still write to the old file
    with log.open("wb") as output:
        return jobs.spawn(current, ["resume", name], output, output)


def _is_live(database: Database, name: str) -> bool:
    """Return whether a process is running a study or another stage of it, or was started here to do so."""
    current = Home.current()
    whole = pipeline_of(current.study(name))
    stages = [name] if whole is None else [stage_name(whole, stage) for stage in STAGES]
    started = _started.get(current.study(whole or name).folder)
    alive = started is not None and started.poll() is None
    return alive or any(database.studies.find(stage) is not None and is_run(database, stage) for stage in stages)


def _failed(name: str) -> str | None:
    """Return the end of the output of a resume that was started here and failed."""
    study = Home.current().study(name_to_resume(Home.current().study(name)))
    process = _started.get(study.folder)
    if process is None or process.poll() in (None, 0, 130):  # 130: stopped by a user
        return None
    try:
        text = study.resume_log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = f"no output; exit code {process.returncode}"
    return home.said("\n".join(text.splitlines()[-_TAIL:]))
