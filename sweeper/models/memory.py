"""Memory estimates of training: arithmetic on a model's sizes, before anything is loaded.

The estimate is conservative (a few tens of per cent high). It gives the first micro-batch to try, and the warnings of
`sweeper check`. The terms and their sources:

- **Base.** NF4 and FP4 hold half a byte a weight and one 32-bit constant for each 64 weights; double quantisation
  makes that 0.127 bit a weight (Dettmers et al. 2023, arXiv:2305.14314, section 3). INT8 holds a byte a weight and a
  32-bit constant a row. Only linear layers are quantised; embeddings, norms and the head stay in the model's type.
- **Adapter.** ``rank * (in + out)`` weights a layer (Hu et al. 2021, arXiv:2106.09685), in float32 with a gradient
  and two Adam moments of the same size: 16 bytes a weight (Rajbhandari et al. 2020, arXiv:1910.02054, section 3.1).
- **Other adapters.** Prefix tuning trains a key and a value a layer for each virtual token (Li and Liang 2021,
  arXiv:2101.00190), prompt and P-tuning an embedding, each with its network; (IA)³ a
  number for each output or input of its layers (Liu et al. 2022, arXiv:2205.05638). Full fine-tuning trains a copy of
  every weight, 16 bytes each again. Virtual tokens lengthen the row.
- **Activations.** The inputs of the backward pass, counted operation by operation after Korthikanti et al. 2022
  (arXiv:2205.05198, section 4) for a gated MLP and RMS norms. PEFT adds a float32 copy of each adapted layer's input
  and dropout's output and mask. With checkpointing only each block's input stays, and one block is computed anew.
- **Logits.** ``tokens * vocabulary`` in the model's type and three times in float32 (upcast, log-softmax, gradient),
  as transformers' causal language modelling loss does it. A fused or chunked loss needs much less; not counted on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import assert_never

from sweeper.config.adapter import IA3, Adapter, AnyAdapter, Full, LoHa, LowRank, Prefix, Prompt, PTuning, QuantisedBase
from sweeper.models.facts import ModelFacts

_TYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_BLOCK = 64  # weights per quantisation constant, bitsandbytes' default
_OUTER_BLOCK = 256  # constants per second-level constant
_FLOAT32 = 4
_MARGIN = 1.2  # allocator fragmentation and small tensors


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that training needs, by purpose.

    Attributes:
        adapter: The trained weights; of full fine-tuning a copy of the model.
        optimizer: Adam's two moments.
        activations: Kept for the backward pass, for the whole micro-batch.
        logits: The output layer and the loss, for the whole micro-batch.
        workspace: The largest layer, dequantised for its product.
    """

    base: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    workspace: int

    @property
    def beyond_base(self) -> int:
        """Bytes needed once the base model is loaded."""
        return self.adapter + self.gradients + self.optimizer + self.activations + self.logits + self.workspace

    @property
    def total(self) -> int:
        """All bytes."""
        return self.base + self.beyond_base


@dataclass(frozen=True)
class Workload:
    """The training that memory is estimated for.

    Attributes:
        target_modules: ``all-linear`` or names.
        tokens_per_row: Length of the longest row, in tokens.
        dtype: The compute type.
        attention_matrix: Whether attention keeps its heads x tokens x tokens weights (eager attention only).
        spread_over: Processes that share the base model's weights.
    """

    adapter: Adapter
    lora_rank: int
    target_modules: str | tuple[str, ...]
    tokens_per_row: int
    dtype: str = "bfloat16"
    gradient_checkpointing: bool = False
    attention_matrix: bool = False
    spread_over: int = 1


def estimate(facts: ModelFacts, work: Workload, micro_batch: int) -> MemoryEstimate:
    """Return the memory of training with ``micro_batch`` rows per forward pass; ModelError if a target is missing."""
    tokens = micro_batch * (work.tokens_per_row + work.adapter.extra_tokens)
    trained = trained_parameters(facts, work)
    width = _TYPE_BYTES[work.dtype]
    return MemoryEstimate(
        # An adapter that changes the base keeps a copy of it, to restore it.
        base=base_bytes(facts, work.adapter, work.dtype) // work.spread_over * (1 + work.adapter.changes_base),
        adapter=trained * _FLOAT32,
        gradients=trained * _FLOAT32,
        optimizer=2 * trained * _FLOAT32,
        activations=round(_MARGIN * tokens * _activation_bytes(facts, work)),
        logits=round(_MARGIN * tokens * facts.vocab_size * (width + 3 * _FLOAT32)),
        workspace=_workspace(facts, work),
    )


def trained_parameters(facts: ModelFacts, work: Workload) -> int:
    """Return the number of trained weights; raises as ``estimate``."""
    match work.adapter:
        case LowRank() as adapter:
            lengths = sum(outputs for _, outputs in facts.targets(work.target_modules).values()) * adapter.dora
            return facts.lora_parameters(work.lora_rank, work.target_modules) + lengths
        case Prefix() as adapter:
            key = facts.kv_heads * facts.head_dim
            through = adapter.projection_size or key
            if adapter.projection:
                return adapter.virtual_tokens * key + through * (key + 2 * facts.layers * key)
            return adapter.virtual_tokens * 2 * facts.layers * key
        case Prompt() as adapter:
            return adapter.virtual_tokens * facts.hidden_size
        case PTuning() as adapter:
            return adapter.virtual_tokens * facts.hidden_size + _encoder_parameters(facts.hidden_size, adapter)
        case IA3() as adapter:
            outputs = sum(outputs for _, outputs in facts.targets(adapter.attention_modules).values())
            return outputs + sum(inputs for inputs, _ in facts.targets(adapter.feedforward_modules).values())
        case LoHa():
            return 2 * facts.lora_parameters(work.lora_rank, work.target_modules)
        case Full():
            return facts.parameters
        case _:
            assert_never(work.adapter)


def _encoder_parameters(hidden: int, adapter: PTuning) -> int:
    """Return the weights of P-tuning's network, as PEFT builds it: three layers, or two of an LSTM and two."""
    size = adapter.encoder_size or hidden
    if adapter.encoder == "mlp":
        return size * (2 * hidden + size)
    return 8 * size * (hidden + size) + 8 * size * 3 * size + 2 * size * (2 * size + hidden)


def largest_micro_batch(facts: ModelFacts, work: Workload, *, batch_size: int, free_bytes: int, loaded: bool) -> int:
    """Return the largest micro-batch that divides ``batch_size`` and fits ``free_bytes``; 0 if not even 1 does.

    If ``loaded``, the base is already in memory and ``free_bytes`` is the rest. Raises as ``estimate``.
    """
    for micro_batch in sorted((n for n in range(1, batch_size + 1) if batch_size % n == 0), reverse=True):
        need = estimate(facts, work, micro_batch)
        if (need.beyond_base if loaded else need.total) <= free_bytes:
            return micro_batch
    return 0


def base_bytes(facts: ModelFacts, adapter: AnyAdapter, dtype: str) -> int:
    """Return the bytes of the frozen model, quantised for the adapter."""
    dense = facts.parameters - facts.linear_parameters
    if not isinstance(adapter, QuantisedBase) or adapter.quantization is None:
        return facts.parameters * _TYPE_BYTES[dtype]
    if adapter.quantization == "int8":
        rows = sum(outputs for _, outputs in facts.linear.values())
        quantised = facts.linear_parameters + rows * _FLOAT32
    else:
        blocks = facts.linear_parameters / _BLOCK
        constants = blocks + blocks / _OUTER_BLOCK * _FLOAT32 if adapter.double_quantization else blocks * _FLOAT32
        quantised = facts.linear_parameters // 2 + round(constants)
    return dense * _TYPE_BYTES[dtype] + quantised


def _activation_bytes(facts: ModelFacts, work: Workload) -> float:
    """Return the bytes kept per token over all blocks."""
    width = _TYPE_BYTES[work.dtype]
    block = _block_bytes(facts, work, width)
    if work.gradient_checkpointing:
        return facts.layers * facts.hidden_size * width + block
    return facts.layers * block


def _block_bytes(facts: ModelFacts, work: Workload, width: int) -> float:
    """Return the bytes kept per token in one block."""
    norms = 2 * facts.hidden_size * (2 * _FLOAT32 + width)
    attention = (4 * facts.heads + 2 * facts.kv_heads) * facts.head_dim * width
    if work.attention_matrix:
        attention += facts.heads * work.tokens_per_row * (_FLOAT32 + 2 * width)
    widest = max((max(shape) for shape in facts.linear.values()), default=facts.hidden_size)  # the MLP's width
    mlp = 4 * widest * width
    return norms + attention + mlp + _adapter_bytes(facts, work, width)


def _adapter_bytes(facts: ModelFacts, work: Workload, width: int) -> float:
    """Return the bytes that the adapter keeps per token in one block."""
    match work.adapter:
        case LowRank():
            targets = facts.targets(work.target_modules).values()
            # Per adapted layer: a float32 copy of the input, dropout's output and its mask, and the rank-wide product.
            each = (inputs * (2 * _FLOAT32 + 1) + 2 * work.lora_rank * _FLOAT32 for inputs, _ in targets)
            return sum(each) / facts.layers
        case LoHa():  # the layer's input; the products of its factors do not depend on the tokens
            return sum(inputs for inputs, _ in facts.targets(work.target_modules).values()) * width / facts.layers
        case Full():  # trained weights keep their layer's input
            return sum(inputs for inputs, _ in facts.linear.values()) * width / facts.layers
        case IA3() | Prefix() | Prompt() | PTuning():
            return sum(max(facts.linear[name]) for name in facts.targets(work.adapter.modules)) * width / facts.layers
        case _:
            assert_never(work.adapter)


def _workspace(facts: ModelFacts, work: Workload) -> int:
    """Return the bytes needed for any number of rows: a layer dequantised, or LoHa's products for the backward pass."""
    if isinstance(work.adapter, LoHa):
        return sum(math.prod(shape) for shape in facts.targets(work.target_modules).values()) * _FLOAT32
    largest = max((math.prod(shape) for shape in facts.linear.values()), default=0)
    return largest * _TYPE_BYTES[work.dtype] if work.adapter.is_quantised else 0
