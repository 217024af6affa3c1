"""Slots on tiny bases, made as the packed executor makes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from sweeper.config.adapter import LoRA, QLoRA
from sweeper.config.model import ModelConfig
from sweeper.config.trial import TrialSpec


@pytest.fixture(scope="session")
def base_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Return a loader of tiny bases by family and kind of adapter; each is loaded once."""
    loaded: dict[tuple[Any, ...], Any] = {}

    def load(family: str = "llama", kind: str = "lora", dtype: str = "float32", **more: Any) -> Any:
        from sweeper.training.base_model import load_base

        key = (family, kind, dtype, *sorted(more.items()))
        if key not in loaded:
            folder = tiny.build_model(tmp_path_factory.mktemp("models") / family, family, **more)
            adapter = {"lora": LoRA(), "qlora": QLoRA()}[kind]
            loaded[key] = (load_base(folder, ModelConfig(name="tiny", dtype=dtype), adapter, "cpu"), folder)
        return loaded[key][0]

    load.folder = lambda base: next(folder for one, folder in loaded.values() if one is base)
    return load


@pytest.fixture
def spec_of(base_of: Callable[..., Any], tmp_path: Path) -> Callable[..., TrialSpec]:
    """Return a writer of specifications for a base."""

    def make(base: Any, number: int = 0, **changes: Any) -> TrialSpec:
        kind = QLoRA() if getattr(base.model, "is_loaded_in_4bit", False) else LoRA()
        return tiny.trial_spec(base_of.folder(base), tmp_path, number=number, adapter=kind, **changes)

    return make


@pytest.fixture
def slot_of() -> Callable[..., Any]:
    """Return a maker of slots from a base and a specification."""

    def make(base: Any, spec: TrialSpec, micro_batch: int = 64) -> Any:
        from sweeper.packing.slot import Slot

        return Slot.new(spec, base, micro_batch)

    return make


@pytest.fixture
def engine_of() -> Any:
    """Return a maker of engines; each leaves its base as it was found."""
    from sweeper.packing.engine import Engine

    made = []

    def make(base: Any, *slots: Any, **options: Any) -> Engine:
        engine = Engine(base, **options)
        made.append(engine)
        for slot in slots:
            engine.prepare(slot.adapter)
        return engine

    yield make
    for engine in made:
        engine.close()
