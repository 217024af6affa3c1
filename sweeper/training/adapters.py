"""From an adapter's configuration and a trial's hyperparameters to PEFT."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, TaskType

from sweeper.config.adapter import Adapter
from sweeper.config.trial import Hyperparameters
from sweeper.training.base_model import SCORE, BaseModel, Head


def peft_config(adapter: Adapter, parameters: Hyperparameters, head: Head = "language") -> PeftConfig:
    """Return the PEFT configuration of a trial's adapter; a head that scores is trained and saved with it."""
    targets = parameters.target_modules
    return LoraConfig(
        r=parameters.lora_rank,
        lora_alpha=parameters.lora_alpha,
        lora_dropout=parameters.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        use_rslora=adapter.rslora,
        **_task(head),
    )


def _task(head: Head) -> dict[str, Any]:
    if head == "score":
        return {"task_type": TaskType.SEQ_CLS, "modules_to_save": [SCORE]}
    return {"task_type": TaskType.CAUSAL_LM}


def cast_adapter(base: BaseModel, model: PeftModel) -> None:
    """Give an adapter's weights the type that they train in.

    PEFT makes adapters float32, and TRL rounds those of a quantised base to bfloat16. Beside float32 compute bfloat16
    only loses small updates, so there they become float32 again.
    """
    quantised = getattr(base.model, "is_loaded_in_4bit", False) or getattr(base.model, "is_loaded_in_8bit", False)
    for parameter in model.parameters():
        if parameter.requires_grad:
            rounded = parameter.data.to(torch.bfloat16) if quantised else parameter.data.float()
            parameter.data = rounded.float() if base.dtype is torch.float32 else rounded
