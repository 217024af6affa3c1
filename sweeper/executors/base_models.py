"""The base models of a study's trials: loaded when a trial needs one, and one at a time."""

from __future__ import annotations

import gc
from pathlib import Path

import torch

from sweeper.config.adapter import Adapter
from sweeper.config.choice import loaded_as
from sweeper.config.model import ModelConfig
from sweeper.config.trial import TrialSpec
from sweeper.executors.context import StudyContext
from sweeper.training.backends.base import in_this_process
from sweeper.training.base_model import BaseModel, load_base

_Key = tuple[Path, ModelConfig, str, str]
"""All that the weights in memory depend on: folder, types, quantisation, device."""


class BaseModelCache:
    """Keeps the base model of the trial at hand; another one takes its place, so that memory holds one only."""

    def __init__(self) -> None:
        self._key: _Key | None = None
        self._base: BaseModel | None = None

    def of(self, context: StudyContext, spec: TrialSpec) -> BaseModel:
        """Return the base model of a trial, loading it unless it is the one that is here."""
        return self.get(context, spec.model, spec.adapter)

    def get(self, context: StudyContext, model: ModelConfig, adapter: Adapter) -> BaseModel:
        """Return a base model as an adapter needs it, loading it unless it is the one that is here."""
        folder = context.models[model.name].folder
        key = (folder, model, loaded_as(adapter), context.device)
        if self._base is None or key != self._key:
            self._release(context.device)
            context.listener.stage(f"loading {model.name}")
            context.keep_alive()
            head = context.config.technique.head
            self._base, self._key = (
                load_base(folder, model, adapter, context.device, head, in_this_process(context.config.backend)),
                key,
            )
            context.keep_alive()
        return self._base

    def _release(self, device: str) -> None:
        """Free the memory of the base before the next one takes its own."""
        if self._base is None:
            return
        self._base = None
        gc.collect()  # PEFT and the trainer leave circles behind
        if device != "cpu":
            torch.cuda.empty_cache()
