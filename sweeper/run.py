"""A study from its file to its registered winner: the whole flow on one screen."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from sweeper.config.backend import in_own_processes
from sweeper.config.executor import SharedExecutor
from sweeper.config.loader import StudyFile
from sweeper.config.orders import budget_of, with_budget
from sweeper.config.pipeline import name_to_resume
from sweeper.config.space import Space
from sweeper.config.study import StudyConfig
from sweeper.data.splits import PreparedData, write_splits
from sweeper.differences import differences
from sweeper.errors import LeaseLost, StudyInterrupted, StudyStateError
from sweeper.executors.base import Asked, Executor, Listener, Silent, StudyContext
from sweeper.executors.claims import bide
from sweeper.executors.control import MoreToTrain, has_work, more_to_train, obey, refuse_outdated
from sweeper.executors.crew import Crew
from sweeper.executors.exchange import Exchange
from sweeper.executors.inline import InlineExecutor
from sweeper.executors.packed import PackedExecutor
from sweeper.executors.per_gpu import PerGpuExecutor
from sweeper.executors.ray import RayExecutor, exchange_of
from sweeper.executors.recorder import keep_policy
from sweeper.executors.recovery import reclaim
from sweeper.executors.stopping import StopRequest
from sweeper.executors.watchdog import Watchdog
from sweeper.hardware import gpus
from sweeper.leftovers import remove_leftovers
from sweeper.paths import Home, StudyPaths
from sweeper.patience import Patience, waiting
from sweeper.registry.reward_models import require_unchanged
from sweeper.resolve import ResolvedStudy, resolve_study
from sweeper.resolved import Resolved
from sweeper.search.storage import open_storage
from sweeper.search.study import Search
from sweeper.start import pinned
from sweeper.store import SCORING, Database, OrderKind, OrderState, StudyRecord, StudyState, bind, stored_config
from sweeper.support import require
from sweeper.training.device import resolve_device
from sweeper.winner import Verdict, find_winner

EXECUTORS: dict[str, Callable[[], Executor]] = {
    "packed": PackedExecutor,
    "inline": InlineExecutor,
    "per_gpu": PerGpuExecutor,
    "ray": RayExecutor,
}

_MAY_CHANGE = ("executor", "keep", "storage")
"""What of a study file changes no trial: a study may go on with another."""

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
    bind(home, file.config.storage)
    file = replace(file, config=pinned(file.config, home))
    config = file.config
    if Database.exists(home.database):  # looked at before anything is downloaded, and made only once the study can run
        with Database.open(home.database, create=True) as database:
            begun = _is_begun(file, home, database)
        if begun:
            return _join(file, home, listener, stop, force=force)
    device = resolve_device(config.executor.device)
    resolved = resolve_study(file, fetch=True, home=home, on_progress=listener.stage)
    with Database.open(home.database, create=True) as database:
        # Of two processes that begin it at once, one does.
        with waiting(Patience(listener.note, lambda: stop.is_set)), database.exclusively(config.name):
            begun = _is_begun(file, home, database)
            context = None if begun else _begin(file, resolved, device, home, database, listener, stop)
        if context is not None:
            return _conduct(context, home, force=force)
    return _join(file, home, listener, stop, force=force)


def _is_begun(file: StudyFile, home: Home, database: Database) -> bool:
    """Tell whether this very study was begun and is not finished.

    Raises:
        StudyStateError: If its name is taken by another study, or it is finished.
    """
    name = file.config.name
    record = database.studies.find(name)
    if record is None and not home.study(name).pipeline.is_file():
        return False
    other = f"`sweeper run {file.path} --name {name}-2` begins another"
    differs = "" if record is None else _difference(file, record, database)
    if record is None or record.state is StudyState.FINISHED or differs:
        raise StudyStateError(
            f"study {name!r} is in {home.database} already{differs or '; '}`sweeper resume {name}` goes on with it, "
            f"{other}"
        )
    return True


def _difference(file: StudyFile, record: StudyRecord, database: Database) -> str:
    """Say where a study file differs from what a study was begun with; empty where it does not."""
    stored, config = stored_config(record), file.config
    orders = database.orders.all(record.name)
    if any(order.kind is OrderKind.BUDGET and order.state is OrderState.DONE for order in orders):
        config = with_budget(config, budget_of(stored))  # people changed it since: the file could not know
    former, wanted = (each.model_dump(mode="json", exclude=set(_MAY_CHANGE)) for each in (stored, config))
    lines = differences(former, wanted)
    return "\n  ".join([", begun with another file:", *lines, ""]) if lines else ""


def _join(file: StudyFile, home: Home, listener: Listener, stop: StopRequest, *, force: bool) -> Verdict:
    """Run a study together with the processes that run it already, or go on with it where none does any more.

    Where and how its trials run may have changed: whoever goes on with it from now on goes by the new file.
    """
    with Database.open(home.database, create=False) as database, database.exclusively(file.config.name):
        _go_by_the_new(file.config, database, listener)
    listener.note(f"study {file.config.name} was begun with this very file: this process joins it")
    return resume_study(file.config.name, home=home, listener=listener, stop=stop, force=force)


def _go_by_the_new(config: StudyConfig, database: Database, listener: Listener) -> None:
    stored = stored_config(database.studies.get(config.name))
    changed = stored.model_copy(update={part: getattr(config, part) for part in _MAY_CHANGE})
    lines = differences(stored.model_dump(mode="json"), changed.model_dump(mode="json"))
    if lines:
        text = "; ".join(lines).replace(" there, ", " before, ").replace(" here", " now")
        database.studies.set_config(config.name, changed.model_dump(mode="json"))
        database.events.add(config.name, "changed", text)
        listener.note(f"it goes on by the new file: {text}")


def resume_study(
    name: str,
    *,
    home: Home | None = None,
    listener: Listener | None = None,
    stop: StopRequest | None = None,
    force: bool = False,
) -> Verdict:
    """Go on with a study that was stopped, killed or finished: what is done stays, what is missing is done.

    Where other processes run it, this one shares the trials with them.

    Raises:
        StudyStateError: If there is no such study, or what it began with is gone or was changed.
        StudyInterrupted: If it was stopped again.
        SweeperError: If no trial was completed.
    """
    home, listener, stop = home or Home.current(), listener or Silent(), StopRequest() if stop is None else stop
    patience = Patience(listener.note, lambda: stop.is_set)
    with Database.open(home.database, create=False) as database, waiting(patience):
        ended = database.studies.get(name).state is StudyState.FINISHED
        context = _take_up(name, home, database, listener, stop)
        unfinished = reclaim(context)
        searched = ended and not unfinished and not has_work(context)
        return _conduct(context, home, force=force, searched=searched)


def work(
    name: str,
    *,
    home: Home | None = None,
    device: str | None = None,
    among: int = 1,
    exchange: Exchange | None = None,
    listener: Listener | None = None,
    stop: StopRequest | None = None,
) -> None:
    """Run trials of a study that another process has begun and will score, until none is left to run.

    Args:
        name: The study.
        home: Where everything is kept; ``SWEEPER_HOME`` if left out.
        device: What to train on; what the study file says if left out.
        among: How many workers share the trials, this one counted, as far as is known.
        exchange: Where the files of trials are exchanged, in a home of this worker's own.
        listener: Told of all progress.
        stop: Set it to stop after the step under way.

    Raises:
        StudyStateError: If there is no such study, or what it began with is gone or was changed.
        StudyInterrupted: If it was stopped.
    """
    home, listener, stop = home or Home.current(), listener or Silent(), StopRequest() if stop is None else stop
    with Database.open(home.database, create=False) as database:
        context = _take_up(name, home, database, listener, stop, device=device)
        context.exchange, context.among = exchange or context.exchange, among
        with context.crew, waiting(_patience(context)), _watched(context):
            reclaim(context)
            context.asked.paused = database.studies.get(name).state is StudyState.PAUSED
            PackedExecutor().run(context)
        if stop.is_set:
            raise StudyInterrupted(f"stopped; `sweeper resume {name_to_resume(context.paths)}` goes on")


def _conduct(context: StudyContext, home: Home, *, force: bool, searched: bool = False) -> Verdict:
    """Run the trials, unless they were, then find the winner; the database always says how the study stands."""
    state = StudyState.INTERRUPTED
    studies, name = context.database.studies, context.config.name
    with context.crew, waiting(_patience(context)), _watched(context):
        refuse_outdated(context, context.asked.since)
        if studies.get(name).state is StudyState.PAUSED and not context.crew.alone():
            context.asked.paused = True
        else:
            studies.set_state(name, StudyState.RUNNING)
        executor = EXECUTORS[context.config.executor.kind]()
        try:
            while True:
                if not searched:
                    executor.run(context)
                if context.stop.is_set:
                    raise StudyInterrupted(f"stopped; `sweeper resume {name_to_resume(context.paths)}` goes on")
                context.asked.changed = False
                with _scoring(context):
                    obey(context)  # what was asked for while another process scored, or of workers before
                    if context.asked.changed and more_to_train(context):
                        searched = False
                        continue
                    state, context.asked.changed = StudyState.FINISHED, False
                    with suppress(MoreToTrain, LeaseLost):  # to be trained first, or another worker scores by now
                        verdict = find_winner(context, partial(executor.base, context), home, force=force)
                        keep_policy(context, ended=True)
                        return verdict
                state, searched = StudyState.INTERRUPTED, False
        except (StudyInterrupted, KeyboardInterrupt):
            state = StudyState.INTERRUPTED
            raise
        finally:
            if state is StudyState.FINISHED or context.crew.alone():
                studies.set_state(name, state)
            refuse_outdated(context)


def _patience(context: StudyContext) -> Patience:
    def stopped() -> bool:
        context.alive()
        return context.stop.is_set

    def waited(seconds: float) -> None:
        context.asked.stood_still(seconds)
        context.crew.news.set()  # what was stored as the connection was lost, and nobody heard of, is put in order

    return Patience(context.listener.note, stopped, waited)


@contextmanager
def _watched(context: StudyContext) -> Iterator[None]:
    """End this process where it hangs, unless it only waits for processes that are watched themselves."""
    executor = context.config.executor
    waits = isinstance(executor, SharedExecutor) or in_own_processes(context.config.backend)
    with Watchdog(None if waits else executor.stall_timeout_s, context.paths.hang(context.crew.token)) as watchdog:
        context.alive = watchdog.alive
        yield


@contextmanager
def _scoring(context: StudyContext) -> Iterator[None]:
    """Score while no other worker of the study does, once the one that does is done.

    Raises:
        StudyInterrupted: If the user asked to stop.
    """
    name, worker = context.config.name, context.crew.token
    while True:
        with suppress(LeaseLost):
            context.database.leases.take(name, SCORING, worker)
            break
        obey(context)
        if context.stop.is_set:
            raise StudyInterrupted("stopped while another process scores")
        context.listener.stage("another process scores on the test split")
        bide()
    try:
        yield
    finally:
        context.database.leases.release(name, SCORING, worker)


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
    exchange_of(config, database.address, datetime.now(UTC))  # refused before anything is written
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


def _take_up(
    name: str,
    home: Home,
    database: Database,
    listener: Listener,
    stop: StopRequest,
    *,
    device: str | None = None,
) -> StudyContext:
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
    require_unchanged(on_disk.reward_sources, home, database)
    search = Search.open(
        name,
        open_storage(home.database),
        config=config.search,
        space=TypeAdapter(Space).validate_python(record.space["space"]),
        evaluation=config.evaluation,
        seed=config.seed,
    )
    device = resolve_device(config.executor.device if device is None else device)
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
    crew = Crew(database, config.name, device, config.executor.grace_s)
    crew.join()
    if crew.is_local():
        remove_leftovers(paths.folder)
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
        crew=crew,
        reward_sources=resolved.reward_sources,
        exchange=exchange_of(config, database.address, database.studies.get(config.name).created_at),
        asked=Asked(seen=database.orders.latest(config.name)),
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
