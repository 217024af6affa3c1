from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from sweeper.config.adapter import LoRA, QLoRA
from sweeper.config.model import ModelConfig
from sweeper.config.trial import TrialResult, TrialSpec

ADAPTERS = {"lora": LoRA(), "qlora": QLoRA()}


@pytest.fixture(scope="session")
def new_base(tiny_model: Path) -> Callable[..., Any]:
    def load(kind: str) -> Any:
        from sweeper.training.base_model import load_base

        return load_base(tiny_model, ModelConfig(name="tiny"), ADAPTERS[kind], "cpu")

    return load


@pytest.fixture(scope="session")
def lora_base(new_base: Callable[..., Any]) -> Any:
    """One dense base for all tests: that trials leave it as it was is itself among what is tested."""
    return new_base("lora")


@pytest.fixture(scope="session")
def qlora_base(new_base: Callable[..., Any]) -> Any:
    return new_base("qlora")


@pytest.fixture
def spec(tiny_model: Path, tmp_path: Path) -> Callable[..., TrialSpec]:
    def make(kind: str = "lora", **changes: Any) -> TrialSpec:
        return tiny.trial_spec(tiny_model, tmp_path, adapter=ADAPTERS[kind], **changes)

    return make


@pytest.fixture
def train(spec: Callable[..., TrialSpec]) -> Callable[..., tuple[TrialResult, tiny.Curve]]:
    """Train on a base a trial described by ``spec``'s arguments; return its result and its curve."""

    def run(base: Any, kind: str = "lora", *, micro_batch: int = 8, evaluate: Any = None, **changes: Any) -> Any:
        from sweeper.training.trial import train_trial

        curve = changes.pop("curve", None) or tiny.Curve()
        return train_trial(spec(kind, **changes), base, curve, micro_batch, evaluate), curve

    return run
