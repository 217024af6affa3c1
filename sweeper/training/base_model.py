"""The frozen base model: loaded and quantised once per process, shared by its trials."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftConfig, PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    set_seed,
)
from transformers import PreTrainedTokenizerBase as Tokenizer

from sweeper.config.adapter import AnyAdapter, QuantisedBase
from sweeper.config.model import ModelConfig
from sweeper.errors import ModelError
from sweeper.training.backends.base import TrainingBackend
from sweeper.training.device import resolve_attention, resolve_dtype, use_free_cores
from sweeper.training.library_logging import quieten
from sweeper.training.micro_batch import is_out_of_memory
from sweeper.training.weights import ADAPTER_WEIGHTS, MODEL_WEIGHTS, Adapted

Head = Literal["language", "score"]

SCORE = "score"
"""The name of a scoring head in transformers."""


@dataclass
class BaseModel:
    """A base model in memory, between trials without an adapter.

    Attributes:
        model: Frozen weights, quantised for QLoRA.
        tokenizer: With a pad token.
        device: ``cpu`` or ``cuda:N``.
        dtype: What it computes in.
        attention: Attention implementation in transformers' words.
        backend: What trains adapters on it.
        tokenised: Training data already tokenised for this model, by what it was made from.
        measured: Scores of the model without an adapter on held-out rows, by those rows.
        initial: Folder with the start of the present adapter, if that was taken out of the base's weights.
    """

    model: PreTrainedModel
    tokenizer: Tokenizer
    device: str
    dtype: torch.dtype
    attention: str
    backend: TrainingBackend = field(default_factory=TrainingBackend)
    tokenised: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    measured: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    initial: Path | None = None

    @contextmanager
    def adapted(self, config: PeftConfig | None, seed: int) -> Iterator[Adapted]:
        """Attach a new adapter for the length of a ``with`` block, then restore the base.

        Every trial must see the same base, so all that a trainer or PEFT patches is undone: the forward of TRL's fused
        head, checkpointing, input gradients, a trained head in place of the base's.

        Args:
            config: PEFT's configuration; None for a trainable copy of the whole base.
            seed: Seeds the adapter's weights and everything drawn later.
        """
        set_seed(seed)
        with ExitStack() as stack:
            if config is None:
                stack.callback(self._restore, self._attributes())  # it may have been a trainer's reference
                yield copy.deepcopy(self.model).requires_grad_(True)
                return
            if _changes_base(config):
                stack.enter_context(self._weights_kept())
            stack.callback(self._detach, self._attributes())
            adapted = self._attach(config, seed)
            if _changes_base(config):
                self.initial = Path(stack.enter_context(TemporaryDirectory())) / "initial"
                adapted.save_pretrained(str(self.initial))
            yield adapted

    def _attach(self, config: PeftConfig, seed: int) -> PeftModel:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")  # PEFT then sets it itself
            warnings.filterwarnings("ignore", message="lora with eva initialization used with low_cpu_mem_usage=False")
            return self.backend.attach(self.model, config, seed)

    @contextmanager
    def _weights_kept(self) -> Iterator[None]:
        """Restore every weight at the end, bit for bit."""
        kept = {name: weight.detach().to("cpu", copy=True) for name, weight in self.model.named_parameters()}
        try:
            yield
        finally:
            self.initial = None
            for name, weight in self.model.named_parameters():
                weight.data.copy_(kept[name])

    def _attributes(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Return the attributes that trainers patch, each with a copy: model, configs, embeddings, hooks, dropout.

        transformers leaves hooks behind: each trainer that prepares checkpointing adds one and forgets the one before,
        and NEFTune's stays if training fails. Some of TRL's trainers switch dropout off.
        """
        model, embeddings = self.model, self.model.get_input_embeddings()
        dropouts = (module for module in model.modules() if isinstance(module, torch.nn.Dropout))
        generation = [model.generation_config] if model.can_generate() else []
        patched = (model, model.config, *generation, embeddings, *dropouts)
        targets = [*(target.__dict__ for target in patched), embeddings._forward_hooks, model._modules]
        return [(target, dict(target)) for target in targets]

    def _detach(self, saved: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
        take_off(self.model)
        if getattr(self.model, "is_activation_checkpointing", False):
            self.model.activation_checkpointing_disable()
        self._restore(saved)

    def _restore(self, saved: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
        for target, former in saved:
            target.clear()
            target.update(former)
        self.model.zero_grad(set_to_none=True)
        self.model.eval()
        self._free()

    def _free(self) -> None:
        if self.device != "cpu":
            torch.cuda.empty_cache()

    @contextmanager
    def with_adapter(self, folder: Path) -> Iterator[Adapted]:
        """Load a trial's adapter onto the base, or its whole model, for the length of a ``with`` block.

        Raises:
            ModelError: If the folder holds no safetensors weights, or its adapter does not fit.
        """
        if (folder / MODEL_WEIGHTS).is_file():
            yield self.whole(folder)
            self._free()
            return
        if not (folder / ADAPTER_WEIGHTS).is_file():
            raise ModelError(f"{folder} holds no {ADAPTER_WEIGHTS}; sweeper does not load pickled adapters")
        saved = self._attributes()
        try:
            adapted = self._loaded(folder)
            yield adapted
        finally:
            self._detach(saved)

    def _loaded(self, folder: Path) -> PeftModel:
        try:
            return PeftModel.from_pretrained(self.model, folder, use_safetensors=True).eval()
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise ModelError(f"the adapter in {folder} does not fit its base model: {error}") from error

    def whole(self, folder: Path) -> PreTrainedModel:
        """Load a trial's whole model with the head, type and device of the base; not quantised."""
        model: PreTrainedModel = type(self.model).from_pretrained(
            folder,
            dtype=self.dtype,
            attn_implementation=self.attention,
            device_map={"": self.device},
            use_safetensors=True,
            local_files_only=True,
        )
        return model.eval()


def _changes_base(config: PeftConfig) -> bool:
    return isinstance(config, LoraConfig) and config.init_lora_weights in ("pissa", "olora")


def take_off(model: PreTrainedModel) -> None:
    """Restore the layers that an adapter replaced; PEFT's ``unload`` refuses (IA)³ on quantised bases."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            model.set_submodule(name, layer.get_base_layer())
    model.__dict__.pop("peft_config", None)  # or PEFT warns of the next one


def load_base(
    folder: Path,
    config: ModelConfig,
    adapter: AnyAdapter,
    device: str,
    head: Head = "language",
    backend: TrainingBackend | None = None,
) -> BaseModel:
    """Load a base model from a local folder, quantised as the adapter demands.

    A scoring head is new, not quantised, and the same in every process.

    Raises:
        ModelError: If the folder cannot be loaded.
        HardwareError: If the device does not support the configuration.
    """
    quieten()
    backend = backend or TrainingBackend()
    if device != "cpu":
        torch.cuda.set_device(torch.device(device))  # the trainer's "cuda" is then this one
    else:
        use_free_cores()
    dtype = resolve_dtype(config.dtype, device)
    attention = resolve_attention(config.attention, device, dtype)
    try:
        model = _LOADERS[head].from_pretrained(
            folder,
            **({"num_labels": 1} if head == "score" else {}),
            dtype=dtype,
            attn_implementation=attention,
            quantization_config=_quantization(adapter, dtype, head),
            **backend.load_arguments(device),
            trust_remote_code=config.trust_remote_code,
            use_safetensors=True,
            local_files_only=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=config.trust_remote_code, local_files_only=True
        )
    except Exception as error:  # a configuration can make transformers fail anywhere
        advice = "; it does not fit in memory: use a smaller model" if is_out_of_memory(error) else ""
        raise ModelError(f"the base model in {folder} cannot be loaded: {error}{advice}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise ModelError(
            f"the tokenizer in {folder} has neither a pad_token nor an eos_token, so that rows of different lengths "
            "cannot stand in one batch; name one in its tokenizer_config.json"
        )
    if head == "score":
        _begin_head(model, tokenizer)
    model.requires_grad_(False)
    model.eval()
    if device == "cpu":
        _keep_gradients(model)
    return BaseModel(model, tokenizer, device, dtype, attention, backend)


_LOADERS = {"language": AutoModelForCausalLM, "score": AutoModelForSequenceClassification}


def _begin_head(model: PreTrainedModel, tokenizer: Tokenizer) -> None:
    """Draw the head's weights from a fixed seed, and name the padding that follows the scored token."""
    config = model.config.get_text_config()
    config.pad_token_id = tokenizer.pad_token_id
    weight = getattr(model, SCORE).weight
    generator = torch.Generator().manual_seed(0)
    drawn = torch.empty(weight.shape).normal_(0.0, getattr(config, "initializer_range", 0.02), generator=generator)
    weight.data.copy_(drawn)


def _quantization(adapter: AnyAdapter, dtype: torch.dtype, head: Head) -> BitsAndBytesConfig | None:
    if not isinstance(adapter, QuantisedBase) or adapter.quantization is None:
        return None
    skipped = [SCORE] if head == "score" else None
    if adapter.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        llm_int8_skip_modules=skipped,  # despite its name, for 4 bits too
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
