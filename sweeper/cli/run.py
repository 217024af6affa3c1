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

from sweeper.cli.home import StudyName, opened_database
from sweeper.cli.output import Json, console, emit_json, say
from sweeper.config.loader import PipelineFile, StudyFile, load_study
from sweeper.config.pipeline import stage_name
from sweeper.config.study import StudyConfig
from sweeper.errors import UserError

if TYPE_CHECKING:
    from sweeper.cli.live import View
    from sweeper.executors.stop_request import StopRequest
    from sweeper.study.final_evaluation import StudyResult
    from sweeper.study.pipeline import Watch

_Force = Annotated[bool, typer.Option("--force", help="Register the winner even if it does not beat the base model.")]


def run(
    file: Annotated[Path, typer.Argument(help="The study file (YAML).", show_default=False)],
    trials: Annotated[int | None, typer.Option(min=1, help="Number of trials, instead of the file's.")] = None,
    timeout: Annotated[str | None, typer.Option(help="Start no new trial after this long, such as 30m or 6h.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the study, instead of the file's.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed, instead of the file's.")] = None,
    device: Annotated[str | None, typer.Option(help="Device to train on: auto, cpu, cuda or cuda:N.")] = None,
    force: _Force = False,
    as_json: Json = False,
) -> None:
    """Run a study: search, train, compare, and register the winner.

    Ctrl-C stops after the current step, a second Ctrl-C at once. Either way no finished trial is lost, and
    `sweeper resume` continues the study.
    """
    options: dict[tuple[str, ...], Any] = {("name",): name, ("seed",): seed, ("executor", "device"): device}
    options |= {("search", "n_trials"): trials, ("search", "timeout"): timeout}
    file_ = with_options(load_study(file), options)
    if isinstance(file_, PipelineFile):
        from sweeper.study.pipeline import run_pipeline

        last = list(file_.stages.values())[-1].config
        _in_stages(last, as_json, lambda watch, stop: run_pipeline(file_, watch=watch, stop=stop, force=force))
        return
    from sweeper.study.run import run_study  # imports torch: after the file is known to be good

    _watched(file_.config, 0, as_json, lambda view, stop: run_study(file_, listener=view, stop=stop, force=force))


def resume(name: StudyName, force: _Force = False, as_json: Json = False) -> None:
    """Resume a stopped study.

    Finished trials are kept; the others continue from their last checkpoint, or start over. A paused study continues in
    the process that runs it.
    """
    from sweeper.cli.orders import resume_if_paused

    if resume_if_paused(name):
        return
    from sweeper.paths import Home
    from sweeper.store import stored_config

    home = Home.current()
    if home.study(name).pipeline.is_file():
        from sweeper.study.pipeline import remembered, resume_pipeline

        last = list(remembered(name, home).stages.values())[-1].config
        _in_stages(last, as_json, lambda watch, stop: resume_pipeline(name, watch=watch, stop=stop, force=force))
        return
    with opened_database() as database:
        config = stored_config(database.studies.get(name))
        done = sum(t.outcome is not None and not t.outcome.is_open for t in database.trials.all(name))
    from sweeper.study.run import resume_study

    _watched(config, done, as_json, lambda view, stop: resume_study(name, listener=view, stop=stop, force=force))


def with_options(file: StudyFile | PipelineFile, options: dict[tuple[str, ...], Any]) -> StudyFile | PipelineFile:
    """Return the study with the command line's options in place of the file's, in every stage.

    Raises:
        UserError: If an option's value is not allowed.
    """
    if isinstance(file, StudyFile):
        return _with_options(file, options)
    name = options.get(("name",)) or file.name
    stages = {}
    for stage, study in file.stages.items():
        changed = _with_options(study, {**options, ("name",): stage_name(name, stage)})
        stages[stage] = changed if name == file.name else _rewarded_by(changed, file.name, name)
    return replace(file, name=name, stages=stages)


def _rewarded_by(study: StudyFile, former: str, name: str) -> StudyFile:
    """Point the policy of a renamed pipeline to its own reward model."""
    data = study.config.model_dump(exclude_unset=True)
    for reward in data["technique"].get("rewards", ()):
        if reward.get("name") == stage_name(former, "reward"):
            reward["name"] = stage_name(name, "reward")
    return replace(study, config=StudyConfig.model_validate(data))


def _with_options(study: StudyFile, options: dict[tuple[str, ...], Any]) -> StudyFile:
    data = study.config.model_dump(exclude_unset=True)  # a preset may say what the file leaves open
    for path, value in options.items():
        if value is not None:
            part = data
            for key in path[:-1]:
                part = part.setdefault(key, {})
            part[path[-1]] = value
    try:
        return replace(study, config=StudyConfig.model_validate(data))
    except ValidationError as error:
        faults = "; ".join(f"--{str(e['loc'][-1]).replace('n_trials', 'trials')}: {e['msg']}" for e in error.errors())
        raise UserError(faults) from error


def _in_stages(config: StudyConfig, as_json: bool, work: Callable[[Watch, StopRequest], StudyResult]) -> None:
    """Do the work of several stages, each under its own live view, and show the result of the last."""
    from sweeper.executors.stop_request import StopRequest

    stop = StopRequest()

    @contextmanager
    def watch(stage: StudyConfig, done: int) -> Iterator[View]:
        if not as_json:
            say(f"[bold]{stage.name}[/]: {stage.technique.kind}, {stage.search.n_trials} trials")
        with _view(stage, done, as_json) as view, _stoppable(stop, view):
            yield view

    _show(config, work(watch, stop), as_json)


def _watched(config: StudyConfig, done: int, as_json: bool, work: Callable[[View, StopRequest], StudyResult]) -> None:
    """Do the work under a live view, stoppable, and show its result."""
    from sweeper.executors.stop_request import StopRequest

    stop = StopRequest()
    with _view(config, done, as_json) as view, _stoppable(stop, view):
        result = work(view, stop)
    _show(config, result, as_json)


def _view(config: StudyConfig, done: int, as_json: bool) -> View:
    from sweeper.cli.live import LiveView, PlainLines

    screen = console(stderr=as_json)
    return (LiveView if screen.is_terminal else PlainLines)(screen, config, done)


def _show(config: StudyConfig, result: StudyResult, as_json: bool) -> None:
    from sweeper.cli.results import result_json, show_result

    if as_json:
        emit_json(result_json(config, result))
    else:
        show_result(config, result, say)


@contextmanager
def _stoppable(stop: StopRequest, view: View) -> Iterator[None]:
    """Stop after the step at the first Ctrl-C (or SIGTERM), and at once at the second."""

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set:
            raise KeyboardInterrupt
        stop.set()
        view.note("stopping after this step; press Ctrl-C again to stop at once")

    former = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
