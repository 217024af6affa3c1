"""The base class of backends: TRL's trainer on one device."""

from __future__ import annotations

from typing import Any

from peft import PeftConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from sweeper.config.backend import TRL, Backend
from sweeper.training.ranks import Ranks


class TrainingBackend:
    """TRL alone; ``keeps`` says whether trials can be checkpointed: weights and optimizer are in one process."""

    keeps = True

    def __init__(self, config: TRL | None = None, ranks: Ranks | None = None) -> None:
        self._config = config or TRL()
        self.ranks = ranks or Ranks()

    def load_arguments(self, device: str) -> dict[str, Any]:
        """Return further arguments of ``from_pretrained``, which place the weights."""
        return {"device_map": {"": device}}

    def attach(self, model: PreTrainedModel, config: PeftConfig, seed: int) -> PeftModel:
        """Put a new adapter on the base model."""
        return get_peft_model(model, config)

    def arguments(self) -> dict[str, Any]:
        """Return further fields of TRL's configuration."""
        return {"use_liger_kernel": self._config.liger, "torch_compile": self._config.compile}

    def prepare(self, trainer: Any) -> None:
        """Adapt a trainer that is ready to train."""


def in_this_process(config: Backend) -> TrainingBackend:
    """Return a study's backend for a base model in the study's process; if trials have their own, it only scores."""
    return TrainingBackend(config if isinstance(config, TRL) else None)
