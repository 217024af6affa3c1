"""Unsloth's loader and patched LoRA; imported only in a trial's own process, after ``unsloth``."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel
from transformers import PreTrainedModel
from unsloth import FastLanguageModel

from sweeper.config.adapter import QLoRA
from sweeper.config.technique import Technique
from sweeper.config.trial import TrialSpec
from sweeper.errors import ModelError
from sweeper.training.backends.base import TrainingBackend
from sweeper.training.base_model import BaseModel
from sweeper.training.device import resolve_dtype
from sweeper.training.library_logging import quieten


class UnslothBackend(TrainingBackend):
    """One trial under Unsloth."""

    def __init__(self, technique: Technique) -> None:
        super().__init__()
        self._technique = technique

    def attach(self, model: PreTrainedModel, config: PeftConfig, seed: int) -> PeftModel:
        """Put a new adapter on the base model, with Unsloth's kernels in its layers."""
        assert isinstance(config, LoraConfig)
        targets = config.target_modules
        adapted: PeftModel = FastLanguageModel.get_peft_model(
            model,
            r=config.r,
            lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout,
            target_modules=_linear(model) if isinstance(targets, str) else sorted(targets or ()),
            use_gradient_checkpointing="unsloth" if self._technique.gradient_checkpointing else False,
            random_state=seed,
            use_rslora=config.use_rslora,
            max_seq_length=self._technique.max_length,
        )
        return adapted

    def arguments(self) -> dict[str, Any]:
        """Return no further fields of TRL's configuration: Unsloth patches its changes in."""
        return {}


def load_with_unsloth(spec: TrialSpec, device: str) -> BaseModel:
    """Load the base model of a trial with Unsloth, quantised as the adapter asks.

    Raises:
        ModelError: If it cannot be loaded.
    """
    quieten()
    dtype = resolve_dtype(spec.model.dtype, device)
    try:
        model, tokenizer = FastLanguageModel.from_pretrained(
            model_name=str(spec.model_folder),
            max_seq_length=spec.technique.max_length,
            dtype=dtype,
            device_map={"": device},
            load_in_4bit=isinstance(spec.adapter, QLoRA),
            trust_remote_code=spec.model.trust_remote_code,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, NotImplementedError) as error:
        raise ModelError(f"Unsloth cannot load the base model in {spec.model_folder}: {error}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    attention = str(model.config._attn_implementation)
    return BaseModel(model, tokenizer, device, dtype, attention, UnslothBackend(spec.technique))


def _linear(model: PreTrainedModel) -> list[str]:
    """Return the names of the "all-linear" layers: all but the output layer."""
    head = model.get_output_embeddings()  # bitsandbytes' layers are torch's Linear too
    linear = (name for name, each in model.named_modules() if isinstance(each, torch.nn.Linear) and each is not head)
    return sorted({name.rpartition(".")[2] for name in linear})
