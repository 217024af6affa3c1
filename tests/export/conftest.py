"""A tiny Llama with tokenizer and chat template, an adapter of it and the source of an export, made from scratch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
from tiny import row

from sweeper.config.adapter import LoRA, QLoRA
from sweeper.config.evaluation import EvaluationConfig
from sweeper.config.model import ModelConfig
from sweeper.config.parameters import Hyperparameters
from sweeper.config.technique import SFT
from sweeper.config.trial import TrialSpec
from sweeper.export import BaseModelSource, ExportSource, Score, SplitSource

PEFT_WARNS = "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
"""PEFT 0.21 asks transformers 5.23 by a name that is going away."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.filterwarnings(PEFT_WARNS))


def split(path: Path, shape: str, numbers: range) -> SplitSource:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row(shape, number)) + "\n" for number in numbers), encoding="utf-8")
    return SplitSource(path, hashlib.sha256(path.read_bytes()).hexdigest(), len(numbers))


@pytest.fixture(scope="session")
def tiny_base(tiny_model: Path) -> Path:
    return tiny_model


@pytest.fixture(scope="session")
def tiny_adapter(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_adapter(tiny_base, tmp_path_factory.mktemp("registry") / "v1")


def build_adapter(base_folder: Path, folder: Path) -> Path:
    """A LoRA adapter of it whose effect is large, with files beside it that an export must leave out."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, config)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.05
    model.save_pretrained(folder)
    (folder / "training_args.bin").write_bytes(b"a pickle of the trainer")
    return folder


@pytest.fixture
def make_source(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> Callable[..., ExportSource]:
    """Return a maker of sources; keyword arguments replace fields of the source or, by name, the data's shape."""

    def make(shape: str = "prompt_completion", adapter: LoRA | QLoRA | None = None, **changes: Any) -> ExportSource:
        return build_source(tiny_base, tiny_adapter, tmp_path, shape, adapter or LoRA(), **changes)

    return make


def build_source(
    base: Path,
    adapter_path: Path,
    folder: Path,
    shape: str,
    adapter: LoRA | QLoRA,
    technique: SFT | None = None,
    dtype: str = "float32",
    hyperparameters: dict[str, Any] | None = None,
    **changes: Any,
) -> ExportSource:
    train = split(folder / "data" / f"{shape}-train.jsonl", shape, range(100, 120))
    validation = split(folder / "data" / f"{shape}-validation.jsonl", shape, range(200, 206))
    values: dict[str, Any] = {
        "learning_rate": 2e-3,
        "batch_size": 8,
        "epochs": 2.0,
        "warmup_ratio": None if hyperparameters and "warmup_steps" in hyperparameters else 0.1,
        "lr_scheduler": "cosine",
        "weight_decay": 0.01,
        "lora_rank": 4,
        "lora_alpha": 8.0,
        "lora_dropout": 0.05,
    }
    spec = TrialSpec(
        study="numbers",
        number=7,
        seed=1234,
        model=ModelConfig(name="tiny-llama"),
        model_folder=base,
        technique=technique or SFT(max_length=64),
        adapter=adapter,
        train=train.path,
        validation=validation.path,
        hyperparameters=Hyperparameters(**{**values, **(hyperparameters or {})}),
        evaluation=EvaluationConfig(points=3),
        device="cpu",
        micro_batch=4,
        folder=folder / "trial",
    )
    source = ExportSource(
        study="numbers",
        adapter_name="numbers",
        version=1,
        adapter_folder=adapter_path,
        base=BaseModelSource(
            base, "tiny-llama", "f" * 64, hub_id="someone/tiny-llama", revision="abc123", licence="apache-2.0"
        ),
        spec=spec,
        dtype=dtype,
        attention="sdpa",
        micro_batch=4,
        steps=6,
        best_step=4,
        train=train,
        validation=validation,
        test=SplitSource(folder / "data" / "test.jsonl", "e" * 64, 30),
        scores=(Score("exact_match", "test", 0.9, 0.85, 0.94, 0.0, 0.85, 0.94),),
        search="best of 12 trials (GP, halving)",
        versions={"torch": "2.13.0", "peft": "0.21.2"},
        sweeper_version="0.1.0",
    )
    return replace(source, **changes)
