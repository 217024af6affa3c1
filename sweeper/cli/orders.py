"""``sweeper pause``, ``stop``, ``enqueue``, ``clone``, ``budget`` and ``orders``: steering a running study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from sweeper.access.actor import current_actor
from sweeper.cli.home import StudyName, opened_database
from sweeper.cli.output import Json, console, emit_json, safe, say, table
from sweeper.config.pipeline import STAGES, name_to_resume, stage_name
from sweeper.config.yaml_source import parse
from sweeper.errors import StudyStateError, UserError
from sweeper.paths import Home
from sweeper.store import Database, Order, OrderKind, OrderState
from sweeper.study.orders import await_answer, described, give, is_run
from sweeper.study.orders import withdraw as take_back

_ANSWER_TIMEOUT_S = 5.0
"""Longest wait for an answer; a step of a large model takes longer, and the order stays in force."""

_Values = Annotated[
    list[str] | None, typer.Argument(help="Parameters as name=value; values as in YAML.", show_default=False)
]


def stop(
    study: StudyName,
    trial: Annotated[int | None, typer.Option(min=0, help="Stop only this trial.")] = None,
) -> None:
    """Stop a running study, or one of its trials, after the current step.

    `sweeper resume` continues a stopped study. A stopped trial counts as pruned.
    """
    kind = OrderKind.STOP if trial is None else OrderKind.STOP_TRIAL
    _order(study, kind, number=trial)


def pause(study: StudyName) -> None:
    """Pause a running study after the current step; it stays in memory.

    `sweeper resume` continues it, `sweeper stop` ends it. Time spent paused counts against no budget.
    """
    _order(study, OrderKind.PAUSE)


def enqueue(study: StudyName, values: _Values = None) -> None:
    """Queue a configuration to run next, in addition to the study's own trials.

    The sampler chooses the parameters that you leave out. The configuration must lie inside the study's space. Example:
    sweeper enqueue itn learning_rate=1e-4 lora_rank=16
    """
    _order(study, OrderKind.ENQUEUE, data={"parameters": _parsed(values or ())})


def clone(
    study: StudyName,
    trial: Annotated[int, typer.Argument(min=0, help="Number of the trial.", show_default=False)],
    values: _Values = None,
    from_weights: Annotated[
        bool,
        typer.Option("--from-weights", help="Start from the trial's adapter; rank and targets must not change."),
    ] = False,
) -> None:
    """Rerun a trial with changed parameters, next and in addition to the study's own trials.

    Example: sweeper clone itn 12 learning_rate=5e-5 --from-weights
    """
    _order(study, OrderKind.CLONE, number=trial, data={"changes": _parsed(values or ()), "from_weights": from_weights})


def budget(
    study: StudyName,
    trials: Annotated[int | None, typer.Option(min=1, help="Number of trials, not counting ordered ones.")] = None,
    timeout: Annotated[
        str | None, typer.Option(help="Start no new trial after this long, for example 6h; none for no limit.")
    ] = None,
    epochs: Annotated[
        str | None, typer.Option(help="Start no new trial after this many epochs in all; none for no limit.")
    ] = None,
    slots: Annotated[str | None, typer.Option(help="Trials at once, or auto.")] = None,
) -> None:
    """Change the budget of a study, even while it runs.

    Slots change within a step: the youngest trials are frozen and continue later. With fewer trials than have already
    started, the search ends when the running ones have ended.
    """
    given = {"n_trials": trials, "timeout": timeout, "max_epochs_total": epochs, "slots": slots}
    changes = {
        name: None if value == "none" else parse(name, str(value)).data
        for name, value in given.items()
        if value is not None
    }
    if not changes:
        raise UserError("name what to change: --trials, --timeout, --epochs or --slots")
    _order(study, OrderKind.BUDGET, data=changes)


def orders(
    study: StudyName,
    withdraw: Annotated[int | None, typer.Option(min=1, help="Withdraw this order, if it still waits.")] = None,
    as_json: Json = False,
) -> None:
    """List the orders given to a study and what became of them; withdraw one that waits."""
    with opened_database() as database:
        name = _stage(study, Home.current(), database)
        if withdraw is not None:
            take_back(database, name, withdraw, actor=current_actor())
        found = database.orders.all(name)
    if as_json:
        emit_json(found)
        return
    if not found:
        say("no orders yet; `sweeper pause`, `stop`, `enqueue`, `clone` and `budget` give them")
        return
    columns = ("order>", "given (UTC)", "by", "order", "state", "answer")
    console().print(table(columns, (_row(order) for order in found)))


def resume_if_paused(study: str) -> bool:
    """Resume a study that is paused in another process; return whether it was."""
    home = Home.current()
    if not Database.exists(home.database):
        return False
    with opened_database() as database:
        name = _stage(study, home, database)
        found = database.studies.find(name)
        if found is None or found.state != "paused" or not is_run(database, name):
            return False
    _order(study, OrderKind.RESUME)
    return True


def _order(study: str, kind: OrderKind, *, number: int | None = None, data: Mapping[str, Any] | None = None) -> None:
    """Give an order and show its answer."""
    home = Home.current()
    with opened_database() as database:
        name = _stage(study, home, database)
        given = give(home, database, name, kind, actor=current_actor(), number=number, data=data)
        say(f"order {given.id}: {safe(given.message)}")
        if not given.runs:
            say(f"it {given.when}: `sweeper resume {safe(name_to_resume(home.study(name)))}`")
            return
        answered = await_answer(database, name, given.id, _ANSWER_TIMEOUT_S)
    if answered.state is OrderState.REFUSED:
        raise StudyStateError(f"refused: {answered.answer}")
    if answered.state is OrderState.DONE:
        say(f"done: {safe(answered.answer)}")
    else:
        say(f"it {given.when}; see the answer with `sweeper orders {safe(name)}`")


def _stage(study: str, home: Home, database: Database) -> str:
    """Return the study of this name; for a pipeline, its running stage, else the last one that has begun."""
    if not home.study(study).pipeline.is_file():
        return study
    begun = [name for stage in STAGES if database.studies.find(name := stage_name(study, stage)) is not None]
    if not begun:
        raise StudyStateError(f"no stage of study {study!r} has begun yet")
    return next((name for name in begun if is_run(database, name)), begun[-1])


def _parsed(values: Sequence[str]) -> dict[str, Any]:
    """Return ``name=value`` arguments as parameters.

    Raises:
        UserError: If one has another form, or a name is repeated.
    """
    found: dict[str, Any] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UserError(f"{text!r}: write name=value, for example learning_rate=1e-4")
        if name.strip() in found:
            raise UserError(f"{name.strip()} is given twice")
        found[name.strip()] = parse(name.strip(), value).data
    return found


def _row(order: Order) -> tuple[object, ...]:
    given = f"{order.at:%Y-%m-%d %H:%M:%S}"
    return (order.id, given, order.actor, described(order), order.state.value, order.answer)
