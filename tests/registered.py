"""Adapter versions that stand in a registry with all that loads them, without a study's having been run."""

from __future__ import annotations

from typing import Any

from sweeper.config.adapter import LoRA
from sweeper.config.parameters import Hyperparameters
from sweeper.config.trial import TrialSpec
from sweeper.executors.context import StudyContext
from sweeper.files.atomic import write_atomically
from sweeper.paths import Home
from sweeper.registry import AdapterVersion, Registry
from sweeper.store import TrialKind
from sweeper.training.adapters import peft_config
from sweeper.training.base_model import load_base


def register(
    context: StudyContext, *, number: int = 0, adapter: Any = None, name: str | None = None, size: float = 0.3
) -> AdapterVersion:
    """Register a version of random weights, ``size`` apart from the base, as the trial ``number`` of a begun study."""
    import torch

    adapter = adapter or LoRA()
    model = next(iter(context.models.values()))
    spec = TrialSpec(
        study=context.config.name,
        number=number,
        seed=number,
        model=model.config,
        model_folder=model.folder,
        technique=context.config.technique,
        adapter=adapter,
        train=context.data.train,
        validation=context.data.validation,
        hyperparameters=Hyperparameters(learning_rate=1e-3, batch_size=8, epochs=1.0, lora_rank=4),
        evaluation=context.config.evaluation,
        device="cpu",
        folder=context.paths.trial(number).folder,
    )
    write_atomically(context.paths.trial(number).spec, spec.model_dump_json())
    base = load_base(model.folder, model.config, adapter, "cpu", context.config.technique.head)
    settings = peft_config(adapter, spec.hyperparameters, model.folder, context.config.technique.head)
    saved = spec.folder / "adapter"
    with base.adapted(settings, number) as trained:
        generator = torch.Generator().manual_seed(number)
        for weight in trained.parameters():
            if weight.requires_grad:
                weight.data.add_(torch.randn(weight.shape, generator=generator) * size)
        trained.save_pretrained(saved)
    context.database.trials.start(spec, TrialKind.SAMPLED)
    registry = Registry(Home.current(), context.database)
    return registry.register(name or context.config.name, saved, study=context.config.name, trial=number)
