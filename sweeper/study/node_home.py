"""A study's files in a home of this machine's own, taken from where the study's machines exchange them."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from sweeper.config.model import ModelConfig
from sweeper.database_url import PostgresUrl
from sweeper.errors import ModelError, StudyStateError
from sweeper.executors.artifact_store import DATA, ArtifactStore
from sweeper.executors.listener import Listener
from sweeper.executors.workers.process import WorkerJob
from sweeper.models.facts import fingerprint
from sweeper.models.resolve import resolve
from sweeper.paths import STORAGE, Home
from sweeper.registry.merged_base import is_start
from sweeper.store import Database, stored_config
from sweeper.study.resolved_inputs import FoundModel, ResolvedInputs


def prepare_home(job: WorkerJob, home: Home, artifact_store: ArtifactStore, listener: Listener) -> None:
    """Make a home into one in which a study can be worked on: its database, its splits, its base models.

    Raises:
        UserError: If a base model is not to be had here, or is another one than the study's.
    """
    home.folder.mkdir(parents=True, exist_ok=True)
    if job.storage is not None and not os.environ.get(STORAGE):
        home.bind(PostgresUrl.parse(job.storage))
    with Database.open(home.database, create=False) as database:
        models = stored_config(database.studies.get(job.study)).models
    paths = home.study(job.study)
    given = paths.folder / "given"
    with FileLock(home.folder / f".{job.study}.lock"):  # workers of one node share its home
        if not artifact_store.fetch(DATA, given):
            raise StudyStateError(f"study {job.study!r}: its data are not where executor.artifacts says")
        shutil.copytree(given / "data", paths.data, dirs_exist_ok=True)
        resolved = ResolvedInputs.read(job.study, given / "resolved.json")
        here = {name: _found(models[name], found, given, listener) for name, found in resolved.models.items()}
        replace(resolved, models=here).write(paths.resolved)


def _found(model: ModelConfig, found: FoundModel, folder: Path, listener: Listener) -> FoundModel:
    """Return where a base model is on this machine: where it was on the first, or where its name leads."""
    there = Path(found.folder)
    if there.is_dir() and fingerprint(there) == found.fingerprint:
        return found
    if is_start(model):
        raise ModelError(
            f"base model {model.name} was merged on the machine that began the study, and is not here; use a home that "
            "all nodes see (executor.artifacts: shared), or export the merged model and name its folder"
        )
    here = resolve(model, folder, on_progress=listener.stage).path
    if fingerprint(here) != found.fingerprint:
        raise ModelError(f"the base model in {here} is another one than {model.name} where the study was begun")
    return FoundModel(str(here), found.fingerprint, found.tokens_per_row)
