"""``sweeper run`` and ``sweeper resume``."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from sweeper.cli.output import console, emit_json, say
from sweeper.config.loader import StudyFile, load_study
from sweeper.config.study import StudyConfig
from sweeper.errors import UserError

if TYPE_CHECKING:
    from sweeper.cli.live import View
    from sweeper.executors.base import StopRequest
    from sweeper.winner import Verdict

_Force = Annotated[bool, typer.Option("--force", help="Register the winner even if it does not beat the base model.")]
_Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]


def run(
    file: Annotated[Path, typer.Argument(help="The study file (YAML).", show_default=False)],
    trials: Annotated[int | None, typer.Option(min=1, help="Run this many trials instead of the file's.")] = None,
    timeout: Annotated[str | None, typer.Option(help="Start no trial after this long, for example 30m or 6h.")] = None,
    name: Annotated[str | None, typer.Option(help="Run it under another name.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Another seed.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    force: _Force = False,
    as_json: _Json = False,
) -> None:
    """Run a study: search, train, compare, register the winner.

    Ctrl-C once ends the step under way and leaves a study that `sweeper resume` goes on with; twice stops at once.
    No finished trial is lost either way.
    """
    study = with_options(
        load_study(file),
        {
            ("search", "n_trials"): trials,
            ("search", "timeout"): timeout,
            ("name",): name,
            ("seed",): seed,
            ("executor", "device"): device,
        },
    )
    from sweeper.run import run_study  # imports torch: after the file is known to be good

    _watched(study.config, 0, as_json, lambda view, stop: run_study(study, listener=view, stop=stop, force=force))


def resume(
    name: Annotated[str, typer.Argument(help="Name of the study; `sweeper status` lists them.", show_default=False)],
    force: _Force = False,
    as_json: _Json = False,
) -> None:
    """Go on with a study that was stopped: finished trials stay, the others go on or begin again."""
    from sweeper.paths import Home
    from sweeper.store import Database

    with Database.open(Home.current().database, create=False) as database:
        config = StudyConfig.model_validate(database.studies.get(name).config)
        done = sum(t.outcome is not None and not t.outcome.is_open for t in database.trials.all(name))
    from sweeper.run import resume_study

    _watched(config, done, as_json, lambda view, stop: resume_study(name, listener=view, stop=stop, force=force))


def with_options(study: StudyFile, options: dict[tuple[str, ...], Any]) -> StudyFile:
    """Return the study with the options given on the command line in place of the file's.

    Raises:
        UserError: If an option's value is not allowed.
    """
    data = study.config.model_dump()
    for path, value in options.items():
        if value is not None:
            part = data
            for key in path[:-1]:
                part = part[key]
            part[path[-1]] = value
    try:
        return replace(study, config=StudyConfig.model_validate(data))
    except ValidationError as error:
        faults = "; ".join(f"--{str(e['loc'][-1]).replace('n_trials', 'trials')}: {e['msg']}" for e in error.errors())
        raise UserError(faults) from error


def _watched(config: StudyConfig, done: int, as_json: bool, work: Callable[[View, StopRequest], Verdict]) -> None:
    """Do the work under a live view, stoppable, and show its verdict."""
    from sweeper.cli.live import LiveView, PlainLines
    from sweeper.cli.verdict import show_verdict, verdict_json
    from sweeper.executors.base import StopRequest

    screen = console(stderr=as_json)
    view = (LiveView if screen.is_terminal else PlainLines)(screen, config, done)
    stop = StopRequest()
    with view, _stoppable(stop, view):
        verdict = work(view, stop)
    if as_json:
        emit_json(verdict_json(config, verdict))
    else:
        show_verdict(config, verdict, say)


@contextmanager
def _stoppable(stop: StopRequest, view: View) -> Iterator[None]:
    """Make the first Ctrl-C (or SIGTERM) a request, and the second an order."""

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set:
            raise KeyboardInterrupt
        stop.set()
        view.note("stopping after this step; once more stops at once")

    former = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
