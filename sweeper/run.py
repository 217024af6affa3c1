"""A study from its file to its registered winner: the whole flow on one screen."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from sweeper.config.loader import StudyFile
from sweeper.config.pipeline import name_to_resume
from sweeper.config.space import Space
from sweeper.config.study import StudyConfig
from sweeper.data.splits import PreparedData, write_splits
from sweeper.errors import StudyInterrupted, StudyStateError
from sweeper.executors.base import Executor, Listener, Silent, StopRequest, StudyContext
from sweeper.executors.control import MoreToTrain, has_work, refuse_outdated
from sweeper.executors.inline import InlineExecutor
from sweeper.executors.packed import PackedExecutor
from sweeper.executors.per_gpu import PerGpuExecutor
from sweeper.executors.ray import RayExecutor
from sweeper.executors.recorder import recover
from sweeper.hardware import gpus
from sweeper.paths import Home, StudyPaths
from sweeper.resolve import ResolvedStudy, resolve_study
from sweeper.resolved import Resolved
from sweeper.search.storage import open_storage
from sweeper.search.study import Search
from sweeper.start import pinned
from sweeper.store import Database, StudyRecord, StudyState, stored_config
from sweeper.support import require
from sweeper.training.device import resolve_device
from sweeper.winner import Verdict, find_winner

EXECUTORS: dict[str, Callable[[], Executor]] = {
    "packed": PackedExecutor,
    "inline": InlineExecutor,
    "per_gpu": PerGpuExecutor,
    "ray": RayExecutor,
}

_PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets", "evaluate", "optuna")


def run_study(
    file: StudyFile,
    *,
    home: Home | None = None,
    listener: Listener | None = None,
    stop: StopRequest | None = None,
    force: bool = False,
) -> Verdict:
    """Search, train, score and register: everything a study file asks for.

    Args:
        file: The study.
        home: Where everything is kept; ``SWEEPER_HOME`` if left out.
        listener: Told of all progress.
        stop: Set it to stop after the step under way.
        force: Register the winner even if it does not beat the base model.

    Raises:
        UserError: If the study, its data, its model or this machine is at fault; nothing is changed then.
        StudyInterrupted: If it was stopped; `resume_study` goes on.
        SweeperError: If no trial was completed.
    """
    home, listener, stop = home or Home.current(), listener or Silent(), StopRequest() if stop is None else stop
    file = replace(file, config=pinned(file.config, home))
    config = file.config
    if home.database.exists():  # looked at before anything is downloaded, and made only once the study can run
        with Database.open(home.database, create=True) as database:
            _require_new(file, home, database)
    device = resolve_device(config.executor.device)
    resolved = resolve_study(file, fetch=True, home=home, on_progress=listener.stage)
    with Database.open(home.database, create=True) as database, _exclusively(home.study(config.name)):
        _require_new(file, home, database)
        context = _begin(file, resolved, device, home, database, listener, stop)
        return _conduct(context, home, force=force)


def _require_new(file: StudyFile, home: Home, database: Database) -> None:
    """Refuse a study whose name is taken."""
    name = file.config.name
    if database.studies.find(name) is not None or home.study(name).pipeline.is_file():
        raise StudyStateError(
            f"study {name!r} is in {home.database} already; `sweeper resume {name}` goes on with it, "
            f"`sweeper run {file.path} --name {name}-2` begins another"
        )


def resume_study(
    name: str,
    *,
    home: Home | None = None,
    listener: Listener | None = None,
    stop: StopRequest | None = None,
    force: bool = False,
) -> Verdict:
    """Go on with a study that was stopped, killed or finished: what is done stays, what is missing is done.

    Raises:
        StudyStateError: If there is no such study, or another process runs it.
        StudyInterrupted: If it was stopped again.
        SweeperError: If no trial was completed.
    """
    home, listener, stop = home or Home.current(), listener or Silent(), StopRequest() if stop is None else stop
    with Database.open(home.database, create=False) as database:
        ended = database.studies.get(name).state is StudyState.FINISHED
        with _exclusively(home.study(name)):
            context = _take_up(name, home, database, listener, stop)
            unfinished = recover(context)
            searched = ended and not unfinished and not has_work(context)
            return _conduct(context, home, force=force, searched=searched)


def _conduct(context: StudyContext, home: Home, *, force: bool, searched: bool = False) -> Verdict:
    """Run the trials, unless they were, then find the winner; the database always says how the study stands."""
    state = StudyState.INTERRUPTED
    studies, name = context.database.studies, context.config.name
    refuse_outdated(context, context.asked.since)
    studies.set_state(name, StudyState.RUNNING)
    executor = EXECUTORS[context.config.executor.kind]()
    try:
        while True:
            if not searched:
                executor.run(context)
            if context.stop.is_set:
                raise StudyInterrupted(f"stopped; `sweeper resume {name_to_resume(context.paths)}` goes on")
            state, context.asked.changed = StudyState.FINISHED, False
            with suppress(MoreToTrain):
                return find_winner(context, partial(executor.base, context), home, force=force)
            state, searched = StudyState.INTERRUPTED, False
    except (StudyInterrupted, KeyboardInterrupt):
        state = StudyState.INTERRUPTED
        raise
    finally:
        studies.set_state(name, state)
        refuse_outdated(context)


def _begin(
    file: StudyFile,
    resolved: ResolvedStudy,
    device: str,
    home: Home,
    database: Database,
    listener: Listener,
    stop: StopRequest,
) -> StudyContext:
    """Prepare the data, create the search and record the study."""
    config, paths = file.config, home.study(file.config.name)
    for note in (*resolved.splits.notes, *resolved.space.reasons):
        listener.note(note)
    folders = {name: model.found.path for name, model in resolved.models.items()}
    on_disk = Resolved.of(folders, resolved.splits.train, config.technique, resolved.reward_sources)
    shutil.rmtree(paths.folder / "trials", ignore_errors=True)  # of a study of this name whose database is gone
    data = write_splits(resolved.splits, paths.data)
    on_disk.write(paths.resolved)
    storage = open_storage(home.database)
    Search.forget_unbegun(config.name, storage)  # the study's row, written last, is what makes it one
    search = Search.create(
        config.name,
        storage,
        config=config.search,
        space=resolved.space.space,
        evaluation=config.evaluation,
        seed=config.seed,
        known_good=resolved.space.known_good if config.search.known_good else (),
    )
    database.studies.create(
        config.name,
        file_name=file.path.name,
        file_text=file.text,
        config=config.model_dump(mode="json"),
        space=_space_json(resolved),
        seed=config.seed,
        packages=_versions(),
        data_sha256=data.sha256,
        base_model=", ".join(on_disk.models),
        base_model_fingerprint=on_disk.fingerprint,
    )
    return _context(config, paths, database, search, data, on_disk, device, listener, stop)


def _take_up(name: str, home: Home, database: Database, listener: Listener, stop: StopRequest) -> StudyContext:
    """Put a stored study together again, from the database and its folder."""
    record, paths = database.studies.get(name), home.study(name)
    config = stored_config(record)
    data = PreparedData(
        paths.data / "train.jsonl", paths.data / "validation.jsonl", paths.data / "test.jsonl", record.data_sha256
    )
    _require(name, paths.resolved, data.train, data.validation, data.test)
    on_disk = Resolved.read(name, paths.resolved)
    _require(name, *(Path(model.folder) for model in on_disk.models.values()))
    _require_unchanged(record, data)
    on_disk.require_unchanged(name)
    search = Search.open(
        name,
        open_storage(home.database),
        config=config.search,
        space=TypeAdapter(Space).validate_python(record.space["space"]),
        evaluation=config.evaluation,
        seed=config.seed,
    )
    device = resolve_device(config.executor.device)
    require(config, device, gpus())
    return _context(config, paths, database, search, data, on_disk, device, listener, stop)


def _require(name: str, *paths: Path) -> None:
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise StudyStateError(f"study {name!r} cannot go on: {', '.join(missing)} is gone")


def _require_unchanged(record: StudyRecord, data: PreparedData) -> None:
    """Refuse to mix two experiments in one study."""
    for split in ("train", "validation", "test"):
        path: Path = getattr(data, split)
        if hashlib.sha256(path.read_bytes()).hexdigest() != record.data_sha256[split]:
            raise StudyStateError(f"study {record.name!r} cannot go on: {path} is not what it began with")


def _context(
    config: StudyConfig,
    paths: StudyPaths,
    database: Database,
    search: Search,
    data: PreparedData,
    resolved: Resolved,
    device: str,
    listener: Listener,
    stop: StopRequest,
) -> StudyContext:
    return StudyContext(
        config=config,
        paths=paths,
        database=database,
        search=search,
        data=data,
        train_rows=resolved.train_rows,
        models=resolved.study_models(config),
        device=device,
        listener=listener,
        stop=stop,
        reward_sources=resolved.reward_sources,
    )


def _space_json(resolved: ResolvedStudy) -> dict[str, Any]:
    space = resolved.space
    return {
        "preset": space.preset,
        "reasons": list(space.reasons),
        "space": {name: range_.model_dump(mode="json") for name, range_ in space.space.items()},
        "known_good": list(space.known_good),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@contextmanager
def _exclusively(paths: StudyPaths) -> Iterator[None]:
    """Hold the study's lock; the operating system lets go of it however this process ends."""
    paths.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(paths.lock)
    try:
        lock.acquire(timeout=1)  # `sweeper status` may hold it for an instant, to see whether anyone does
    except Timeout:
        raise StudyStateError(
            f"another process is running study {paths.folder.name!r}; `sweeper status` shows it"
        ) from None
    try:
        yield
    finally:
        lock.release()
