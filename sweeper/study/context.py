"""Contexts of studies: made at the beginning, or again from the database and the study's folder."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from sweeper.compatibility import require
from sweeper.config.loader import StudyFile
from sweeper.config.space import Space
from sweeper.config.study import StudyConfig
from sweeper.data.splits import PreparedData, write_splits
from sweeper.errors import StudyStateError
from sweeper.executors.context import PendingOrders, StudyContext
from sweeper.executors.listener import Listener
from sweeper.executors.membership import WorkerMembership
from sweeper.executors.stop_request import StopRequest
from sweeper.executors.workers.ray import artifact_store_of
from sweeper.files.checksums import sha256_of
from sweeper.files.temporary import remove_leftovers
from sweeper.hardware import gpus
from sweeper.paths import Home, StudyPaths
from sweeper.registry.reward_models import require_unchanged
from sweeper.retry import retried
from sweeper.search.storages.atomic import AtomicStorage
from sweeper.search.storages.open import open_storage
from sweeper.search.study import Search
from sweeper.store import Database, StudyRecord, stored_config
from sweeper.study.resolve import ResolvedStudy
from sweeper.study.resolved_inputs import ResolvedInputs
from sweeper.training.cpu_dtype import CpuType, is_measured, is_quantised, pick
from sweeper.training.device import resolve_device, use_free_cores

_PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets", "evaluate", "optuna")


def begin(
    file: StudyFile,
    resolved: ResolvedStudy,
    device: str,
    home: Home,
    database: Database,
    listener: Listener,
    stop: StopRequest,
) -> StudyContext:
    """Prepare the data, create the search and record the study.

    Raises:
        UserError: If its executor cannot work with its database, or this machine is at fault.
    """
    config, paths, now = file.config, home.study(file.config.name), datetime.now(UTC)
    artifact_store_of(config, database.address, now)  # refused before anything is written
    for note in (*resolved.splits.unused, *resolved.splits.notes, *resolved.space.reasons):
        listener.note(note)
    folders = {name: model.found.path for name, model in resolved.models.items()}
    inputs = folders, resolved.splits.train, config.technique, resolved.reward_sources
    on_disk = ResolvedInputs.of(*inputs, _cpu_dtype(config, device, listener))
    shutil.rmtree(paths.folder / "trials", ignore_errors=True)  # of a study of this name whose database is gone
    data = write_splits(resolved.splits, paths.data)
    on_disk.write(paths.resolved)
    search = _new_search(config, resolved, open_storage(home.database))
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
        at=now,
    )
    return _context(config, paths, database, search, data, on_disk, device, listener, stop)


def _cpu_dtype(config: StudyConfig, device: str, listener: Listener) -> CpuType:
    """Return what ``dtype: auto`` is on a CPU, measured if the study begins on one."""
    if device != "cpu" or not is_measured(config):
        return "float32"
    use_free_cores()
    picked = pick(quantised=is_quantised(config))
    listener.note(f"computes in {picked.dtype}: {picked.reason}")
    return picked.dtype


@retried
def _new_search(config: StudyConfig, resolved: ResolvedStudy, storage: AtomicStorage) -> Search:
    """Create the search anew: the study's row, written last, is what makes it one."""
    Search.forget_unbegun(config.name, storage)
    return Search.create(
        config.name,
        storage,
        config=config.search,
        space=resolved.space.space,
        evaluation=config.evaluation,
        seed=config.seed,
        known_good=resolved.space.known_good if config.search.known_good else (),
    )


def open_stored(
    name: str,
    home: Home,
    database: Database,
    listener: Listener,
    stop: StopRequest,
    *,
    device: str | None = None,
) -> StudyContext:
    """Put a stored study together again, from the database and its folder.

    Raises:
        StudyStateError: If there is no such study, or what it began with is gone or was changed.
        HardwareError: If this machine cannot run it.
    """
    record, paths = database.studies.get(name), home.study(name)
    config = stored_config(record)
    data = PreparedData(
        paths.data / "train.jsonl", paths.data / "validation.jsonl", paths.data / "test.jsonl", record.data_sha256
    )
    _require(name, paths.resolved, data.train, data.validation, data.test)
    on_disk = ResolvedInputs.read(name, paths.resolved)
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
        if sha256_of(path) != record.data_sha256[split]:
            raise StudyStateError(f"study {record.name!r} cannot go on: {path} is not what it began with")


def _context(
    config: StudyConfig,
    paths: StudyPaths,
    database: Database,
    search: Search,
    data: PreparedData,
    resolved: ResolvedInputs,
    device: str,
    listener: Listener,
    stop: StopRequest,
) -> StudyContext:
    membership = WorkerMembership(database, config.name, device, config.executor.grace_s)
    membership.join()
    remove_leftovers(paths.folder)
    if device == "cpu" and (threads := use_free_cores()) is not None:
        listener.note(threads)
    return StudyContext(
        config=config,
        paths=paths,
        database=database,
        search=search,
        data=data,
        train_rows=resolved.train_rows,
        models=resolved.study_models(config, device),
        device=device,
        listener=listener,
        stop=stop,
        membership=membership,
        reward_sources=resolved.reward_sources,
        artifact_store=artifact_store_of(config, database.address, database.studies.get(config.name).created_at),
        pending_orders=PendingOrders(seen=database.orders.latest(config.name)),
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
