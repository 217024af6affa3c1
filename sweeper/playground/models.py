"""Models of the playground: base models loaded once, versions put on them for an answer."""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sweeper.config.choice import loaded_as
from sweeper.config.model import ModelConfig
from sweeper.config.trial import TrialSpec
from sweeper.errors import RegistryError
from sweeper.paths import Home
from sweeper.playground.protocol import Subject
from sweeper.registry import AdapterVersion, Registry
from sweeper.registry.version import trial_spec
from sweeper.store import Database
from sweeper.training.base_model import BaseModel, load_base

_Key = tuple[Path, ModelConfig, str, str]
"""The properties that the weights in memory depend on: folder, types, quantisation, device."""


@dataclass(frozen=True)
class Playable:
    """A subject with its version and training specification."""

    subject: Subject
    version: AdapterVersion
    spec: TrialSpec


class Models:
    """Holds the base models of the current request; versions of one base share it."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._bases: dict[_Key, BaseModel] = {}

    def find(self, subject: Subject) -> Playable:
        """Find a version that can answer.

        Raises:
            RegistryError: If there is none, its files were changed, or it answers with a number.
            DatabaseError: If there is no database.
        """
        with Database.open(self._home.database, create=False) as database:
            registry = Registry(self._home, database)
            version = registry.get(subject.adapter, subject.version)
            if not subject.bare:
                registry.verify(version.name, version.version)
        spec = trial_spec(self._home, version)
        if spec.technique.head != "language":
            raise RegistryError(f"{version} is a reward model, which answers with a number and writes no text")
        return Playable(subject, version, spec)

    def keep_only(self, wanted: Collection[Playable], device: str) -> None:
        """Free the base models that none of these use."""
        for key in self._bases.keys() - {_key(each, device) for each in wanted}:
            del self._bases[key]
        free_memory()

    def clear(self) -> None:
        """Free everything."""
        self._bases.clear()
        free_memory()

    @contextmanager
    def ready(self, playable: Playable, device: str, on_stage: Callable[[str], None]) -> Iterator[tuple[Any, Any]]:
        """Yield the model and the tokenizer of a subject.

        Raises:
            ModelError: If it cannot be loaded.
            HardwareError: If the device lacks what it needs.
        """
        base = self._base(playable, device, on_stage)
        if playable.subject.bare:
            yield base.model, base.tokenizer
            return
        on_stage(f"loading {playable.version}")
        with base.with_adapter(playable.version.folder) as model:
            yield model, base.tokenizer

    def _base(self, playable: Playable, device: str, on_stage: Callable[[str], None]) -> BaseModel:
        key, spec = _key(playable, device), playable.spec
        if key not in self._bases:
            on_stage(f"loading {spec.model.name}")
            self._bases[key] = load_base(spec.model_folder, spec.model, spec.adapter, device)
        return self._bases[key]


def pick_device(home: Home) -> tuple[str, str]:
    """Return the device, and why if it is not a GPU: there is none, or a study of this home is training here."""
    if not torch.cuda.is_available():
        return "cpu", "no GPU here"
    with Database.open(home.database, create=False) as database:
        running = [study.name for study in database.studies.all() if database.workers.alive(study.name)]
    if running:
        return "cpu", f"study {running[0]} is running and uses the GPU"
    return "cuda:0", ""


def free_memory() -> None:
    """Free unused memory."""
    gc.collect()  # PEFT leaves reference cycles
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _key(playable: Playable, device: str) -> _Key:
    spec = playable.spec
    return spec.model_folder, spec.model, loaded_as(spec.adapter), device
