"""From an adapter's configuration and a trial's hyperparameters to PEFT."""

from __future__ import annotations

from peft import LoraConfig, PeftConfig, TaskType

from sweeper.config.adapter import Adapter
from sweeper.config.trial import Hyperparameters


def peft_config(adapter: Adapter, parameters: Hyperparameters) -> PeftConfig:
    """Return the PEFT configuration of a trial's adapter."""
    targets = parameters.target_modules
    return LoraConfig(
        r=parameters.lora_rank,
        lora_alpha=parameters.lora_alpha,
        lora_dropout=parameters.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        use_rslora=adapter.rslora,
        task_type=TaskType.CAUSAL_LM,
    )
