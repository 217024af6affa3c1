"""A study of several stages: each a study of its own, begun from the registered winners of those before."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeper.config.loader import PipelineFile, StudyFile
from sweeper.config.pipeline import STAGES, stage_name
from sweeper.config.study import StudyConfig
from sweeper.data.splits import load_splits
from sweeper.errors import StudyStateError, UserError
from sweeper.executors.listener import Listener
from sweeper.executors.stop_request import StopRequest
from sweeper.files.atomic import read_json, write_json
from sweeper.paths import Home
from sweeper.redact import redact
from sweeper.registry import AdapterVersion
from sweeper.registry.merged_base import reference
from sweeper.retry import RetryPolicy, waiting
from sweeper.store import Database, StudyState, bind, read_config
from sweeper.study.existing import differences
from sweeper.study.final_evaluation import StudyResult
from sweeper.study.run import resume_study, run_study

_log = logging.getLogger(__name__)

Watch = Callable[[StudyConfig, int], AbstractContextManager[Listener]]
"""Gives whoever watches a stage, told how many of its trials were done before."""


def run_pipeline(
    file: PipelineFile,
    *,
    home: Home | None = None,
    watch: Watch = lambda config, done: nullcontext(Listener()),
    stop: StopRequest | None = None,
    force: bool = False,
) -> StudyResult:
    """Run every stage of a study in order; the verdict is that of the last.

    ``watch`` gives the listener of a stage; the rest is as in ``run_study``.

    Raises:
        UserError: If the study, its data, its model or this machine is at fault.
        StudyStateError: If there is a study of that name, or a stage registered nothing to go on from.
        StudyInterrupted: If it was stopped; `resume_pipeline` goes on at the stage.
    """
    home = home or Home.current()
    bind(home, next(iter(file.stages.values())).config.storage)
    paths = home.study(file.name)
    stages = {stage: study.config.model_dump(mode="json", exclude_unset=True) for stage, study in file.stages.items()}
    if paths.folder.exists():
        _require_unfinished(file, stages, home)
        return resume_pipeline(file.name, home=home, watch=watch, stop=stop, force=force)
    _require_free(file, home)
    for study in file.stages.values():  # the last stage's data are at fault now, not after a night
        load_splits(study.config.data, study.folder, study.config.technique.rows)
    write_json(paths.pipeline, {"path": str(file.path.absolute()), "text": redact(file.text), "stages": stages})
    try:
        return _go_on(file, home, watch, StopRequest() if stop is None else stop, force=force)
    except UserError:
        _forget_unbegun(file, home)
        raise


def _require_unfinished(file: PipelineFile, stages: Mapping[str, Any], home: Home) -> None:
    """Refuse to join a study that was begun with another file, or that is finished."""
    name, pipeline = file.name, home.study(file.name).pipeline
    lines = differences(read_json(pipeline)["stages"], stages) if pipeline.is_file() else []
    finished = False
    if Database.exists(home.database):
        with Database.open(home.database, create=False) as database:
            last = database.studies.find(stage_name(name, list(stages)[-1]))
            finished = last is not None and last.state is StudyState.FINISHED
    if lines or finished or not pipeline.is_file():
        differs = "\n  ".join([", begun with another file:", *lines, ""]) if lines else "; "
        raise StudyStateError(
            f"study {name!r} is in {home.folder} already{differs}`sweeper resume {name}` goes on with it, "
            f"`sweeper run {file.path} --name {name}-2` begins another"
        )


def _require_free(file: PipelineFile, home: Home) -> None:
    """Refuse a study of whose stages one has the name of a study that is not its own."""
    if Database.exists(home.database):
        with Database.open(home.database, create=False) as database:
            taken = stages_begun(file.name, database)
        if taken:
            raise StudyStateError(
                f"study {taken[0]!r}, as a stage of {file.name!r} would be called, is in {home.folder} already; "
                f"`sweeper run {file.path} --name {file.name}-2` has other names"
            )


def _forget_unbegun(file: PipelineFile, home: Home) -> None:
    """Leave nothing of a study whose first stage could not begin, so that it can be run again once it is mended."""
    with Database.open(home.database, create=True) as database:
        if not stages_begun(file.name, database):
            shutil.rmtree(home.study(file.name).folder)


def is_pipeline(name: str, home: Home) -> bool:
    """Tell whether a study of several stages has this name."""
    return home.study(name).pipeline.is_file()


def stages_begun(name: str, database: Database) -> tuple[str, ...]:
    """Return the names of the stages' studies that were begun, in order."""
    names = (stage_name(name, stage) for stage in STAGES)
    return tuple(each for each in names if database.studies.find(each) is not None)


def resume_pipeline(
    name: str,
    *,
    home: Home | None = None,
    watch: Watch = lambda config, done: nullcontext(Listener()),
    stop: StopRequest | None = None,
    force: bool = False,
) -> StudyResult:
    """Go on with a study of several stages at the stage where it was stopped; see `run_pipeline`."""
    home = home or Home.current()
    return _go_on(remembered(name, home), home, watch, StopRequest() if stop is None else stop, force=force)


def remembered(name: str, home: Home) -> PipelineFile:
    """Return a pipeline as it was begun, options of the command line included."""
    kept = read_json(home.study(name).pipeline)
    path = Path(kept["path"])
    configs = {stage: read_config(stage_name(name, stage), kept["stages"][stage]) for stage in STAGES}
    stages = {stage: StudyFile(config, path, kept["text"], ("stages", stage)) for stage, config in configs.items()}
    return PipelineFile(name, stages, path, kept["text"])


def _go_on(file: PipelineFile, home: Home, watch: Watch, stop: StopRequest, *, force: bool) -> StudyResult:
    winners: dict[str, AdapterVersion] = {}
    *before, last = file.stages
    for stage in before:
        result = _run_stage(_begun_from(file.stages[stage], winners), home, watch, stop, force=force)
        if result.registered is None:
            raise StudyStateError(
                f"stage {stage} found nothing better than what it began from, so the next stage has nothing to go on "
                f"from; `sweeper resume {file.name} --force` goes on with its best trial"
            )
        winners[stage] = result.registered
    return _run_stage(_begun_from(file.stages[last], winners), home, watch, stop, force=force)


def _run_stage(study: StudyFile, home: Home, watch: Watch, stop: StopRequest, *, force: bool) -> StudyResult:
    name = study.config.name
    patience = RetryPolicy(_log.warning, lambda: stop.is_set)  # nobody watches between two stages
    with waiting(patience), Database.open(home.database, create=True) as database:
        begun = database.studies.find(name) is not None
        done = _done(database, name) if begun else 0
    with watch(study.config, done) as listener:
        if begun:
            return resume_study(name, home=home, listener=listener, stop=stop, force=force)
        return run_study(study, home=home, listener=listener, stop=stop, force=force)


def _done(database: Database, name: str) -> int:
    return sum(t.outcome is not None and not t.outcome.is_open for t in database.trials.all(name))


def _begun_from(study: StudyFile, winners: Mapping[str, AdapterVersion]) -> StudyFile:
    """Let a stage begin from the SFT stage's winner, and a policy be rewarded by the reward stage's."""
    data: dict[str, Any] = study.config.model_dump(exclude_unset=True)
    if "sft" in winners:
        data["model"]["name"] = reference(winners["sft"])
    if "reward" in winners:
        reward = winners["reward"]
        for each in data["technique"]["rewards"]:
            if each.get("name") == reward.name and each.get("version") is None:
                each["version"] = reward.version
    return replace(study, config=StudyConfig.model_validate(data))
