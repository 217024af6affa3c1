"""A trial's adapter in PEFT: its configuration, initial weights and types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch
from torch.utils.data import DataLoader

from sweeper.config.adapter import AnyAdapter
from sweeper.config.parameters import Hyperparameters
from sweeper.training.base_model import SCORE, BaseModel, Head
from sweeper.training.weights import Adapted

_ROWS = 8
"""Rows in a pass of EVA, the same on every machine, so that its directions are too."""


def peft_config(
    adapter: AnyAdapter, parameters: Hyperparameters, tokenizer: Path | None = None, head: Head = "language"
) -> peft.PeftConfig | None:
    """Return the PEFT configuration of a trial's adapter; None if the base itself is trained.

    ``tokenizer`` is the folder of the base's, for a prompt that begins with a text. A head that scores is trained and
    saved with the adapter.
    """
    if adapter.peft is None:
        return None
    options = adapter.peft_options(parameters)
    options["task_type"] = peft.TaskType.SEQ_CLS if head == "score" else peft.TaskType.CAUSAL_LM
    if head == "score" and not adapter.is_prompt_learning:
        options["modules_to_save"] = [SCORE]
    if "prompt_tuning_init_text" in options:
        options["tokenizer_name_or_path"] = str(tokenizer)
    if options.get("init_lora_weights") == "eva":
        options["eva_config"] = peft.EvaConfig()  # PEFT's defaults, those of the paper
    config: peft.PeftConfig = getattr(peft, adapter.peft)(**options)
    return config


def initialise(adapter: AnyAdapter, model: Any, base_folder: Path, rows: Any, collate: Any) -> None:
    """Fill in initial weights of an adapter on ``model`` that PEFT cannot compute when it creates it.

    LoftQ reads the dense base's weights, EVA passes the tokenised training rows, batched by ``collate``.
    """
    init = getattr(adapter, "init", None)
    if init == "loftq":
        peft.replace_lora_weights_loftq(model, str(base_folder / "model.safetensors"))
    elif init == "eva":

        def batch(some: Any) -> dict[str, torch.Tensor]:
            tensors = {name: value for name, value in collate(some).items() if isinstance(value, torch.Tensor)}
            return {name: value.to(model.device) for name, value in tensors.items()}

        # A separate generator leaves the trial's random numbers unchanged.
        batches = DataLoader(rows, batch_size=_ROWS, collate_fn=batch, generator=torch.Generator())
        peft.initialize_lora_eva_weights(model, batches, show_progress_bar=False)


def cast_adapter(base: BaseModel, model: Adapted) -> None:
    """Convert an adapter's weights to the type that they train in.

    PEFT makes adapters float32, and TRL rounds those of a quantised base to bfloat16. Beside float32 compute bfloat16
    only loses small updates, so there they become float32 again.
    """
    quantised = getattr(base.model, "is_loaded_in_4bit", False) or getattr(base.model, "is_loaded_in_8bit", False)
    for parameter in model.parameters():
        if parameter.requires_grad:
            rounded = parameter.data.to(torch.bfloat16) if quantised else parameter.data.float()
            parameter.data = rounded.float() if base.dtype is torch.float32 else rounded
