"""The cache of converted models: one folder each, complete or absent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from sweeper.errors import ModelNotFoundError
from sweeper.files.atomic import write_json
from sweeper.files.temporary import temporary_path
from sweeper.models.catalogue import lookup
from sweeper.paths import cache_folder

OnStage = Callable[[str, float | None], None]
"""Called with the stage and the fraction done (0 to 1; None if unknown)."""

_ORIGIN = "sweeper.json"


@dataclass(frozen=True)
class InstalledModel:
    """A converted model in the cache; ``origin`` is its source, as recorded at the conversion."""

    name: str
    path: Path
    bytes: int
    origin: dict[str, str]


def models_folder() -> Path:
    """Return the folder that holds the converted models."""
    return cache_folder() / "models"


def cached_path(name: str) -> Path:
    """Return the folder of a converted catalogue model, present or not."""
    return models_folder() / name


def installed() -> list[InstalledModel]:
    """Return the converted models in the cache, by name."""
    folders = sorted(path for path in models_folder().glob("*") if (path / _ORIGIN).is_file())
    return [
        InstalledModel(
            name=path.name,
            path=path,
            bytes=sum(file.stat().st_size for file in path.iterdir() if file.is_file()),
            origin=json.loads((path / _ORIGIN).read_text(encoding="utf-8")),
        )
        for path in folders
    ]


def remove(name: str) -> InstalledModel:
    """Delete a converted model from the cache; ModelNotFoundError if there is none of this name."""
    models = {model.name: model for model in installed()}
    entry = lookup(name)
    model = models.get(entry.name if entry is not None else name)
    if model is None:
        held = ", ".join(models) or "nothing"
        raise ModelNotFoundError(f"no model {name!r} in {models_folder()}; it holds {held}")
    with _lock(model.name):
        # Renamed first: an interrupted removal leaves no partial model under the name.
        shutil.rmtree(model.path.replace(temporary_path(model.path)))
    return model


@contextmanager
def installation(name: str, origin: dict[str, str]) -> Iterator[Path | None]:
    """Yield an empty folder to build model ``name`` in, and move it into place if the block succeeds.

    Yields None if another process finished the same model in the meantime. Remains of failed builds are deleted.
    """
    target = cached_path(name)
    with _lock(name):
        for stale in target.parent.glob(f".{name}.*.tmp"):
            shutil.rmtree(stale, ignore_errors=True)
        if target.exists():
            yield None
            return
        building = temporary_path(target)
        building.mkdir()
        try:
            yield building
            write_json(building / _ORIGIN, origin)
            building.replace(target)
        finally:
            shutil.rmtree(building, ignore_errors=True)


def _lock(name: str) -> FileLock:
    models_folder().mkdir(parents=True, exist_ok=True)
    return FileLock(models_folder() / f".{name}.lock")
