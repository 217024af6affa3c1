"""Base models that are registered adapters merged into their own base, for studies that start from another's winner.

A study file names one by ``model: adapter:NAME``, ``adapter:NAME@VERSION`` or ``adapter:NAME@ALIAS``. The merged
weights are written to the home once, verified as every export is, and are then a base model like any other.
"""

from __future__ import annotations

import re

from pydantic import ValidationError

from sweeper.config.model import ModelConfig
from sweeper.config.pipeline import STARTED_FROM
from sweeper.config.rewards import AdapterReward
from sweeper.config.study import StudyConfig
from sweeper.errors import ModelError
from sweeper.export.source import ExportSource
from sweeper.export.writer import MANIFEST, export
from sweeper.models.cache import OnStage
from sweeper.models.resolve import ModelFolder
from sweeper.paths import Home
from sweeper.registry import AdapterVersion, Registry
from sweeper.registry.provenance import export_source
from sweeper.store import Database

_REFERENCE = re.compile(rf"{STARTED_FROM}(?P<name>[^@]+)(@(v?(?P<version>\d+)|(?P<alias>[^@]+)))?")


def is_start(model: ModelConfig) -> bool:
    """Return whether a study starts from a registered adapter."""
    return model.name.startswith(STARTED_FROM)


def reference(version: AdapterVersion) -> str:
    """Return the model name of this version."""
    return f"{STARTED_FROM}{version.name}@{version.version}"


def pinned(config: StudyConfig, home: Home) -> StudyConfig:
    """Return a study with the versions of its registered adapters pinned: the newest changes, a study does not.

    Raises:
        RegistryError: If an adapter that it starts from, or is rewarded by, is not registered.
        ModelError: If a name is malformed, or two of a choice are the same.
        DatabaseError: If there is no database.
    """
    begun_from = [model for model in config.models.values() if is_start(model)]
    rewards = [reward for reward in getattr(config.technique, "rewards", ()) if isinstance(reward, AdapterReward)]
    if not begun_from and not rewards:
        return config
    data = config.model_dump(exclude_unset=True)
    with Database.open(home.database, create=False) as database:
        registry = Registry(home, database)
        for model in data["model"].get("choice", [data["model"]]):
            if model["name"].startswith(STARTED_FROM):
                model["name"] = reference(registry.get(*_parsed(model["name"])))
        for reward in data["technique"].get("rewards", ()):
            if reward["kind"] == "adapter":
                reward["version"] = registry.get(reward["name"], reward.get("version")).version
    try:
        return StudyConfig.model_validate(data)
    except ValidationError as error:  # NAME and NAME@1 of a choice can be the same version
        raise ModelError(
            "; ".join(str(each.get("ctx", {}).get("error", each["msg"])) for each in error.errors())
        ) from error


def _parsed(name: str) -> tuple[str, int | str | None]:
    match = _REFERENCE.fullmatch(name)
    if match is None:
        raise ModelError(f"model {name!r} must be {STARTED_FROM}NAME, optionally with @VERSION, @STAGE or @ALIAS")
    return match["name"], int(match["version"]) if match["version"] else match["alias"]


def find_start(model: ModelConfig, home: Home, *, fetch: bool, on_progress: OnStage) -> ModelFolder:
    """Find the base model that a study starts from, merging it first if need be and ``fetch`` allows.

    Without ``fetch`` a folder not merged yet is the adapter's own base, which has the same sizes.

    Raises:
        RegistryError: If no such adapter is registered.
        ModelError: If it is not a language model.
        ExportError: If it cannot be merged.
        DatabaseError: If there is no database.
    """
    name, which = _parsed(model.name)
    with Database.open(home.database, create=False) as database:
        registry = Registry(home, database)
        version = registry.get(name, which)
        source = export_source(home, database, version)
        _require_language_model(source, version)
        folder = home.start(version.name, version.version)
        if (folder / MANIFEST).is_file():
            return ModelFolder(reference(version), folder, "start", source.base.licence)
        if not fetch:
            return ModelFolder(reference(version), source.base.folder, "start", source.base.licence)
        registry.verify(version.name, version.version)
        on_progress(f"merging {version} into its base", None)
        export(source, "merged", folder, force=True)
    return ModelFolder(reference(version), folder, "start", source.base.licence)


def _require_language_model(source: ExportSource, version: AdapterVersion) -> None:
    if source.spec.technique.head != "language":
        raise ModelError(f"{version} is a reward model, which outputs a number; a study starts from a language model")
