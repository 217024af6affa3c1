"""Giving orders to the runner of a study: what can be refused is refused at once, the rest waits in the database."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from sweeper.config.orders import cloned, differing, values_in_space, values_of, with_budget
from sweeper.config.pipeline import name_to_resume
from sweeper.config.space import Space
from sweeper.config.trial import Outcome
from sweeper.errors import StudyStateError, UserError
from sweeper.paths import Home
from sweeper.store import Database, Order, OrderKind, OrderState, StudyRecord, StudyState, stored_config
from sweeper.store.trial_files import require_weights

_GLANCE_S = 0.1


@dataclass(frozen=True)
class Given:
    """An order that was given.

    Attributes:
        id: Its number.
        message: What was asked, in words.
        runs: Whether a process runs the study, which will obey it.
        when: When it is obeyed, in words.
    """

    id: int
    message: str
    runs: bool
    when: str


def state_of(database: Database, study: StudyRecord) -> StudyState:
    """Return a study's state; one whose processes were killed is interrupted, whatever they last wrote."""
    alive = study.state in (StudyState.RUNNING, StudyState.PAUSED)
    return StudyState.INTERRUPTED if alive and not is_run(database, study.name) else study.state


def is_run(database: Database, name: str) -> bool:
    """Tell whether a process, here or on another machine, runs a study now, as far as a glance can tell."""
    return bool(database.workers.alive(name))


def extra_trials(database: Database, name: str) -> int:
    """Return how many trials of a study people ordered, which come on top of its own."""
    extra = (OrderKind.ENQUEUE, OrderKind.CLONE)
    return sum(order.kind in extra and order.state is OrderState.DONE for order in database.orders.all(name))


def space_of_study(study: StudyRecord) -> Space:
    """Return the resolved space of a study."""
    return TypeAdapter(Space).validate_python(study.space.get("space", {}))


def give(
    home: Home,
    database: Database,
    name: str,
    kind: OrderKind,
    *,
    actor: str,
    number: int | None = None,
    data: Mapping[str, Any] | None = None,
) -> Given:
    """Give an order to the runner of a study.

    Args:
        home: Where the study is.
        database: The home's.
        name: The study.
        kind: What is asked.
        actor: Who asks.
        number: The trial that it is about, if any.
        data: What is asked: ``parameters`` to enqueue; ``changes`` and ``from_weights`` of a clone; a budget by name.

    Raises:
        UserError: If it cannot be done, saying why; nothing was stored then.
    """
    study, asked = database.studies.get(name), dict(data or {})
    state, runs = state_of(database, study), is_run(database, name)
    message = _possible(home, database, study, kind, number, asked)
    order = database.orders.add(name, kind, actor=actor, message=message, number=number, data=asked)
    return Given(order, message, runs, _when(kind, state, runs))


def withdraw(database: Database, name: str, order: int, *, actor: str) -> None:
    """Take back an order that waits.

    Raises:
        StudyStateError: If there is no such order, or it has been answered.
    """
    with database.study_lock(name):  # nobody obeys it at this moment
        found = database.orders.get(name, order)
        if not database.orders.answer(name, order, OrderState.WITHDRAWN, f"by {actor}"):
            raise StudyStateError(f"order {order} does not wait: {found.state}: {found.answer}")


def obstacle(home: Home, database: Database, order: Order, name: str) -> str | None:
    """Return why an order that waits can never be done, or None."""
    if order.kind in (OrderKind.PAUSE, OrderKind.RESUME, OrderKind.STOP):
        return None
    try:
        _possible(home, database, database.studies.get(name), order.kind, order.number, dict(order.data))
    except UserError as error:
        return str(error)
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        return f"it is not one that sweeper gives ({type(error).__name__}: {error})"
    return None


def _possible(
    home: Home, database: Database, study: StudyRecord, kind: OrderKind, number: int | None, asked: dict[str, Any]
) -> str:
    """Return what is asked in words.

    Raises:
        UserError: If it cannot be done, saying why.
    """
    name = study.name
    match kind:
        case OrderKind.PAUSE | OrderKind.STOP | OrderKind.RESUME:
            _require_state(home, name, kind, state_of(database, study))
            return f"{kind.value} study {name}"
        case OrderKind.STOP_TRIAL:
            _require_open(database, name, number)
            return f"stop trial {number} of study {name}"
        case OrderKind.ENQUEUE:
            if not asked.get("parameters"):
                raise StudyStateError("name at least one parameter; what is left out is chosen by the sampler")
            values_in_space(space_of_study(study), asked["parameters"])
            return f"run {_shown(asked['parameters'])} in study {name}"
        case OrderKind.CLONE:
            _require_cloneable(home, database, study, number, asked)
            weights = " from its weights" if asked["from_weights"] else ""
            return f"clone trial {number} of study {name}{weights} with {_shown(asked['changes']) or 'no change'}"
        case OrderKind.BUDGET:
            with_budget(stored_config(study), asked)
            return f"change the budget of study {name}: {_shown(asked)}"


def described(order: Order) -> str:
    """Return what an order asks for, as one line."""
    values = {**order.data.get("parameters", {}), **order.data.get("changes", {})}
    if order.kind is OrderKind.BUDGET:
        values = order.data
    about = "" if order.number is None else f" trial {order.number}"
    weights = " from its weights" if order.data.get("from_weights") else ""
    return f"{order.kind.value.partition('_')[0]}{about}{weights} {_shown(values)}".strip()


def await_answer(database: Database, name: str, order: int, timeout_s: float) -> Order:
    """Return an order when it has been answered, or as it stands after ``timeout_s``."""
    until = time.monotonic() + timeout_s
    while (found := database.orders.get(name, order)).state is OrderState.WAITING and time.monotonic() < until:
        time.sleep(_GLANCE_S)
    return found


def _when(kind: OrderKind, state: StudyState, runs: bool) -> str:
    if not runs:
        return "waits until the study is resumed: no process runs it"
    if kind is OrderKind.STOP_TRIAL and state is StudyState.PAUSED:
        return "is done when the paused study is resumed"
    return "is obeyed after the step under way"


def _require_state(home: Home, name: str, kind: OrderKind, state: StudyState) -> None:
    advice = f"`sweeper resume {name_to_resume(home.study(name))}` goes on with it"
    if state not in (StudyState.RUNNING, StudyState.PAUSED):
        raise StudyStateError(f"study {name!r} is {state}: no process runs it; {advice}")
    if kind is OrderKind.PAUSE and state is StudyState.PAUSED:
        raise StudyStateError(f"study {name!r} is paused already; {advice}")
    if kind is OrderKind.RESUME and state is StudyState.RUNNING:
        raise StudyStateError(f"study {name!r} is running; `sweeper status` shows it")


def _require_open(database: Database, name: str, number: int | None) -> None:
    assert number is not None
    trial = database.trials.get(name, number)
    if trial.outcome is Outcome.INTERRUPTED:
        again = {other.restarts: other for other in database.trials.all(name)}
        while trial.number in again:
            trial = again[trial.number]
    if trial.outcome is not None and not trial.outcome.is_open:
        began = f", begun again as trial {trial.number}," if trial.number != number else ""
        raise StudyStateError(f"trial {number} of study {name!r}{began} does not run: {trial.outcome}")


def _require_cloneable(
    home: Home, database: Database, study: StudyRecord, number: int | None, asked: dict[str, Any]
) -> None:
    assert number is not None
    space = space_of_study(study)
    before = values_of(space, database.trials.get(study.name, number).parameters)
    after = cloned(space, before, asked["changes"])
    if asked["from_weights"]:
        trial = home.study(study.name).trial(number)
        require_weights(database, study.name, trial, differing(space, before, after))


def _shown(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())
