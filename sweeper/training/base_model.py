"""The frozen base model: loaded and quantised once per process, reused by every trial after."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel, set_seed
from transformers import PreTrainedTokenizerBase as Tokenizer

from sweeper.config.adapter import Adapter, QLoRA
from sweeper.config.model import ModelConfig
from sweeper.errors import ModelError
from sweeper.training.backends.base import TrainingBackend
from sweeper.training.device import resolve_attention, resolve_dtype
from sweeper.training.micro_batch import is_out_of_memory
from sweeper.training.quiet import quieten


@dataclass
class BaseModel:
    """A base model in memory, without any adapter between trials.

    Attributes:
        model: Frozen weights, quantised for QLoRA.
        tokenizer: With a pad token.
        device: ``cpu`` or ``cuda:N``.
        dtype: What it computes in.
        attention: Attention implementation in transformers' words.
        backend: What trains adapters on it.
        tokenised: Training data already tokenised for this model, by what it was made from.
    """

    model: PreTrainedModel
    tokenizer: Tokenizer
    device: str
    dtype: torch.dtype
    attention: str
    backend: TrainingBackend = field(default_factory=TrainingBackend)
    tokenised: dict[tuple[Any, ...], Any] = field(default_factory=dict)

    @contextmanager
    def adapted(self, config: PeftConfig, seed: int) -> Iterator[PeftModel]:
        """Attach a new adapter, seeded, for the length of a ``with`` block, and leave the base as it was found.

        The trainer patches the model it trains (the forward of TRL's fused head, checkpointing, input gradients);
        all of that is undone, so that the tenth trial sees the same base as the first.
        """
        saved = self._attributes()
        set_seed(seed)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")  # PEFT then sets it itself
            adapted = self.backend.attach(self.model, config, seed)
        try:
            yield adapted
        finally:
            self._detach(adapted, saved)

    def _attributes(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Return what trainers patch, each with a copy: model and both configs, input embeddings and their hooks.

        The hooks are saved here because transformers does not take all of its own away: each trainer that prepares
        checkpointing adds one and forgets that of the trainer before, and NEFTune's stays where training fails.
        """
        model, embeddings = self.model, self.model.get_input_embeddings()
        patched = (model, model.config, model.generation_config, embeddings)
        targets = [*(target.__dict__ for target in patched), embeddings._forward_hooks]
        return [(target, dict(target)) for target in targets]

    def _detach(self, adapted: PeftModel, saved: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
        adapted.unload()
        if getattr(self.model, "is_activation_checkpointing", False):
            self.model.activation_checkpointing_disable()
        for target, former in saved:
            target.clear()
            target.update(former)
        self.model.zero_grad(set_to_none=True)
        self.model.eval()
        if self.device != "cpu":
            torch.cuda.empty_cache()

    @contextmanager
    def with_adapter(self, folder: Path) -> Iterator[PeftModel]:
        """Load a saved adapter onto the base for the length of a ``with`` block (safetensors only).

        Raises:
            ModelError: If the folder holds no safetensors adapter.
        """
        if not (folder / "adapter_model.safetensors").is_file():
            raise ModelError(f"{folder} holds no adapter_model.safetensors; sweeper does not load pickled adapters")
        saved = self._attributes()
        adapted = PeftModel.from_pretrained(self.model, folder, use_safetensors=True)
        adapted.eval()
        try:
            yield adapted
        finally:
            self._detach(adapted, saved)


def load_base(
    folder: Path, config: ModelConfig, adapter: Adapter, device: str, backend: TrainingBackend | None = None
) -> BaseModel:
    """Load a base model from a local folder, quantised as the adapter asks.

    Raises:
        ModelError: If the folder cannot be loaded.
        HardwareError: If the device lacks what the configuration asks for.
    """
    quieten()
    backend = backend or TrainingBackend()
    if device != "cpu":
        torch.cuda.set_device(torch.device(device))  # the trainer's "cuda" is then this one
    dtype = resolve_dtype(config.dtype, device)
    attention = resolve_attention(config.attention, device, dtype)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=attention,
            quantization_config=_quantization(adapter, dtype),
            **backend.load_arguments(device),
            trust_remote_code=config.trust_remote_code,
            use_safetensors=True,
            local_files_only=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=config.trust_remote_code, local_files_only=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        advice = "; it does not fit in memory: use a smaller model" if is_out_of_memory(error) else ""
        raise ModelError(f"the base model in {folder} cannot be loaded: {error}{advice}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.requires_grad_(False)
    model.eval()
    if device == "cpu":
        _keep_gradients(model)
    return BaseModel(model, tokenizer, device, dtype, attention, backend)


def _quantization(adapter: Adapter, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    if not isinstance(adapter, QLoRA):
        return None
    if adapter.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=adapter.quantization,
        bnb_4bit_use_double_quant=adapter.double_quantization,
        bnb_4bit_compute_dtype=dtype,
    )


def _keep_gradients(model: PreTrainedModel) -> None:
    """Forbid bitsandbytes to repack 4-bit weights for CPU inference.

    On a CPU with AVX512-BF16, the first forward pass in evaluation mode repacks the weights in place for a kernel
    without a backward: every training step after that silently loses the gradient through the frozen layers
    (bitsandbytes 0.50.2, ``Linear4bit.forward``).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
