"""``sweeper stop``, ``pause``, ``enqueue``, ``clone``, ``budget``, ``orders``: what people ask of a running study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from sweeper.access.actor import current_actor
from sweeper.cli.output import console, emit_json, safe, say, table
from sweeper.config.pipeline import STAGES, name_to_resume, stage_name
from sweeper.config.search import duration_s
from sweeper.config.yaml_source import parse
from sweeper.errors import StudyStateError, UserError
from sweeper.paths import Home
from sweeper.store import Database, Order, OrderKind, OrderState
from sweeper.study.orders import await_answer, described, give, is_run

_PATIENCE_S = 5.0
"""How long to wait for an answer; a step of a large model takes longer, and the order stands."""

_NO_LIMIT = "none"

_Study = Annotated[str, typer.Argument(help="Name of the study; `sweeper status` lists them.", show_default=False)]
_Values = Annotated[
    list[str] | None, typer.Argument(help="Parameters as name=value, values as in YAML.", show_default=False)
]
_Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


def stop(
    study: _Study,
    trial: Annotated[int | None, typer.Option(min=0, help="Only this trial; the others go on.")] = None,
) -> None:
    """Stop a running study, or one of its trials, after the step under way.

    A stopped study goes on with `sweeper resume`. A stopped trial is pruned: the search counts it among the weak.
    """
    kind = OrderKind.STOP if trial is None else OrderKind.STOP_TRIAL
    _order(study, kind, number=trial)


def pause(study: _Study) -> None:
    """Let a running study stand still after the step under way; it stays in memory.

    `sweeper resume` lets it go on, `sweeper stop` ends it. The time it stands still counts against no budget.
    """
    _order(study, OrderKind.PAUSE)


def enqueue(study: _Study, values: _Values = None) -> None:
    """Run a configuration next, on top of the study's own trials; what is left out is chosen by the sampler.

    It must lie inside the study's space. For example: sweeper enqueue itn learning_rate=1e-4 lora_rank=16
    """
    _order(study, OrderKind.ENQUEUE, data={"parameters": _parsed(values or ())})


def clone(
    study: _Study,
    trial: Annotated[int, typer.Argument(min=0, help="Number of the trial.", show_default=False)],
    values: _Values = None,
    from_weights: Annotated[
        bool, typer.Option("--from-weights", help="Start from the trial's saved adapter, of equal rank and targets.")
    ] = False,
) -> None:
    """Run a trial's configuration again with changed parameters, next and on top of the study's own trials.

    For example: sweeper clone itn 12 learning_rate=5e-5 --from-weights
    """
    _order(study, OrderKind.CLONE, number=trial, data={"changes": _parsed(values or ()), "from_weights": from_weights})


def budget(
    study: _Study,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials in all, without those that people order.")] = None,
    timeout: Annotated[
        str | None, typer.Option(help="Start no trial after this long, for example 6h; none for no limit.")
    ] = None,
    epochs: Annotated[
        str | None, typer.Option(help="Start no trial after this many epochs in all; none for no limit.")
    ] = None,
    slots: Annotated[str | None, typer.Option(help="Trials at once, or auto.")] = None,
) -> None:
    """Change the budget of a study while it runs, or before it is resumed.

    Slots change within a step: the youngest trials are frozen and go on later. Fewer trials than have been started end
    the search when those that run have ended.
    """
    wanted: dict[str, Any] = {
        "n_trials": trials,
        "timeout": None if timeout is None else _seconds(timeout),
        "max_epochs_total": None if epochs is None else _limit("--epochs", epochs),
        "slots": None if slots is None else "auto" if slots == "auto" else _whole("--slots", slots),
    }
    data = {name: value for name, value in wanted.items() if value is not None}
    if not data:
        raise UserError("name what to change: --trials, --timeout, --epochs or --slots")
    lifted = {name: None if value == _NO_LIMIT else value for name, value in data.items()}
    _order(study, OrderKind.BUDGET, data=lifted)


def orders(study: _Study, as_json: _Json = False) -> None:
    """Show what was asked of a study, by whom, and what became of it."""
    with _database() as database:
        found = database.orders.all(_stage(study, Home.current(), database))
    if as_json:
        emit_json(found)
        return
    if not found:
        say("nothing was asked of this study yet; `sweeper stop --help`, `enqueue` and `clone` say what can be")
        return
    columns = ("order>", "given (UTC)", "by", "what", "state", "answer")
    console().print(table(columns, (_row(order) for order in found)))


def resume_if_paused(study: str) -> bool:
    """Let a study go on that stands still in another process; return whether it was one."""
    home = Home.current()
    if not Database.exists(home.database):
        return False
    with _database() as database:
        name = _stage(study, home, database)
        found = database.studies.find(name)
        if found is None or found.state != "paused" or not is_run(database, name):
            return False
    _order(study, OrderKind.RESUME)
    return True


def _order(study: str, kind: OrderKind, *, number: int | None = None, data: Mapping[str, Any] | None = None) -> None:
    """Give an order and show what becomes of it."""
    home = Home.current()
    with _database() as database:
        name = _stage(study, home, database)
        given = give(home, database, name, kind, actor=current_actor(), number=number, data=data)
        say(f"order {given.id}: {safe(given.message)}")
        if not given.runs:
            say(f"it {given.when}: `sweeper resume {safe(name_to_resume(home.study(name)))}` does it")
            return
        answered = await_answer(database, name, given.id, _PATIENCE_S)
    if answered.state is OrderState.REFUSED:
        raise StudyStateError(f"refused: {answered.answer}")
    if answered.state is OrderState.DONE:
        say(f"done: {safe(answered.answer)}")
    else:
        say(f"it {given.when}; `sweeper orders {safe(name)}` shows the answer")


def _stage(study: str, home: Home, database: Database) -> str:
    """Return the study of this name; of one with several stages the one that runs, else the last that was begun."""
    if not home.study(study).pipeline.is_file():
        return study
    begun = [name for stage in STAGES if database.studies.find(name := stage_name(study, stage)) is not None]
    if not begun:
        raise StudyStateError(f"no stage of study {study!r} has begun yet")
    return next((name for name in begun if is_run(database, name)), begun[-1])


def _parsed(values: Sequence[str]) -> dict[str, Any]:
    """Return ``name=value`` arguments as parameters.

    Raises:
        UserError: If one has another form, or a name comes twice.
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


def _seconds(text: str) -> Any:
    if text == _NO_LIMIT:
        return text
    try:
        return float(duration_s(text) if not _is_number(text) else text)
    except ValueError as error:
        raise UserError(f"--timeout: {error}") from error


def _limit(option: str, text: str) -> Any:
    if text == _NO_LIMIT:
        return text
    if not _is_number(text):
        raise UserError(f"{option}: must be a number or none; found {text!r}")
    return float(text)


def _whole(option: str, text: str) -> int:
    if not text.strip().lstrip("+-").isdecimal():
        raise UserError(f"{option}: must be a whole number or auto; found {text!r}")
    return int(text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _row(order: Order) -> tuple[object, ...]:
    given = f"{order.at:%Y-%m-%d %H:%M:%S}"
    return (order.id, given, order.actor, described(order), order.state.value, order.answer)


@contextmanager
def _database() -> Iterator[Database]:
    with Database.open(Home.current().database, create=False) as database:
        yield database
