"""From an adapter's configuration and a trial's hyperparameters to PEFT."""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_never

import torch
from peft import (
    EvaConfig,
    IA3Config,
    LoHaConfig,
    LoraConfig,
    PeftConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    TaskType,
)

from sweeper.config.adapter import IA3, Adapter, Full, LoHa, LoRA, LowRank, Prefix, Prompt, PTuning, QLoRA
from sweeper.config.trial import Hyperparameters
from sweeper.training.base_model import SCORE, BaseModel, Head
from sweeper.training.weights import Adapted

_PROMPT_INITS = {"random": "RANDOM", "vocabulary": "SAMPLE_VOCAB", "text": "TEXT"}


def peft_config(
    adapter: Adapter, parameters: Hyperparameters, tokenizer: Path | None = None, head: Head = "language"
) -> PeftConfig | None:
    """Return the PEFT configuration of a trial's adapter; None where the base itself is trained.

    Args:
        adapter: What to train.
        parameters: The trial's configuration.
        tokenizer: Folder of the base's tokenizer, for a prompt that begins with a text.
        head: What the base ends in; a head that scores is trained and saved with the adapter.
    """
    scores = head == "score"
    task = {"task_type": TaskType.SEQ_CLS if scores else TaskType.CAUSAL_LM}
    beside = {"modules_to_save": [SCORE]} if scores else {}
    match adapter:
        case LoRA() | QLoRA():
            return _low_rank(adapter, parameters, {**task, **beside})
        case Prefix():
            projection = {"prefix_projection": True, "encoder_hidden_size": adapter.projection_size}
            return PrefixTuningConfig(
                num_virtual_tokens=adapter.virtual_tokens, **projection if adapter.projection else {}, **task
            )
        case Prompt():
            return _prompt(adapter, tokenizer, task)
        case PTuning():
            return PromptEncoderConfig(
                num_virtual_tokens=adapter.virtual_tokens,
                encoder_reparameterization_type=adapter.encoder.upper(),
                encoder_hidden_size=adapter.encoder_size,
                **task,
            )
        case IA3():
            return IA3Config(
                target_modules=list(adapter.modules),
                feedforward_modules=list(adapter.feedforward_modules),
                **task,
                **beside,
            )
        case LoHa():
            return LoHaConfig(
                r=parameters.lora_rank,
                alpha=parameters.lora_alpha,
                rank_dropout=adapter.rank_dropout,
                target_modules=_targets(parameters),
                **task,
                **beside,
            )
        case Full():
            return None
        case _:
            assert_never(adapter)


def _low_rank(adapter: LowRank, parameters: Hyperparameters, task: dict[str, Any]) -> LoraConfig:
    # LoftQ begins as plain LoRA and is filled in from the dense weights; see ``initialisation.py``.
    init = True if adapter.init in ("default", "loftq") else adapter.init
    return LoraConfig(
        r=parameters.lora_rank,
        lora_alpha=parameters.lora_alpha,
        lora_dropout=parameters.lora_dropout,
        target_modules=_targets(parameters),
        use_rslora=adapter.rslora,
        use_dora=adapter.dora,
        init_lora_weights=init,
        **{"eva_config": EvaConfig()} if adapter.init == "eva" else {},  # PEFT's defaults, its authors'
        **task,
    )


def _targets(parameters: Hyperparameters) -> str | list[str]:
    return parameters.target_modules if isinstance(parameters.target_modules, str) else list(parameters.target_modules)


def _prompt(adapter: Prompt, tokenizer: Path | None, task: dict[str, Any]) -> PromptTuningConfig:
    text = {"prompt_tuning_init_text": adapter.init_text, "tokenizer_name_or_path": str(tokenizer)}
    return PromptTuningConfig(
        num_virtual_tokens=adapter.virtual_tokens,
        prompt_tuning_init=_PROMPT_INITS[adapter.init],
        **text if adapter.init == "text" else {},
        **task,
    )


def cast_adapter(base: BaseModel, model: Adapted) -> None:
    """Give an adapter's weights the type that they train in.

    PEFT makes adapters float32, and TRL rounds those of a quantised base to bfloat16. Beside float32 compute bfloat16
    only loses small updates, so there they become float32 again.
    """
    quantised = getattr(base.model, "is_loaded_in_4bit", False) or getattr(base.model, "is_loaded_in_8bit", False)
    for parameter in model.parameters():
        if parameter.requires_grad:
            rounded = parameter.data.to(torch.bfloat16) if quantised else parameter.data.float()
            parameter.data = rounded.float() if base.dtype is torch.float32 else rounded
