"""Whether the weights of a model folder are those that its configuration tells of, from the headers alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeper.errors import ModelError
from sweeper.models.headers import TensorHeader

_FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0")
_EMBEDDING = re.compile(r"(^|\.)(embed_tokens|wte)\.weight$")
_READS_HIDDEN = re.compile(r"\.layers\.\d+\.(self_attn\.[qkv]|mlp\.(gate|up))_proj\.weight$")
"""Layers that read the residual stream, so that their inputs are as many as it is wide."""
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


def check_weights(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, TensorHeader], layers: int) -> None:
    """Hold that layers, shapes and types of the weights are those of the configuration.

    Weights that were saved quantised are packed and have other shapes and types: they are left to their library.

    Args:
        folder: The model's folder, for messages.
        config: Its configuration, the part about the language model laid over the rest.
        tensors: Its tensors by name.
        layers: How many blocks the configuration says.

    Raises:
        ModelError: If they are not; names the tensor.
    """
    if "quantization_config" in config:
        return
    _check_types(folder, tensors)
    _check_layers(folder, tensors, layers)
    _check_shapes(folder, config, tensors)


def _check_types(folder: Path, tensors: Mapping[str, TensorHeader]) -> None:
    for name, tensor in tensors.items():
        if name.endswith(".weight") and len(tensor.shape) == 2 and not tensor.dtype.startswith(_FLOATS):
            raise ModelError(
                f"{folder}: the tensor {name} is of type {tensor.dtype}, and weights are floating-point numbers; "
                "save the model again, or download it again"
            )


def _check_layers(folder: Path, tensors: Mapping[str, TensorHeader], layers: int) -> None:
    found = {int(match[1]) for name in tensors if (match := _LAYER.search(name))}
    if found and layers > len(found):
        raise ModelError(
            f"{folder / 'config.json'} says num_hidden_layers {layers:,}, and the weights have {len(found):,}; "
            "weights and configuration are of different models, or part of the weights is missing"
        )


def _check_shapes(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, TensorHeader]) -> None:
    if "text_config" in config or config.keys() & {"word_embed_proj_dim", "embedding_size"}:
        return  # several towers, or embeddings of a width of their own
    hidden = next((config[name] for name in ("hidden_size", "n_embd", "d_model") if name in config), None)
    for name, tensor in tensors.items():
        if len(tensor.shape) != 2:
            continue
        if _EMBEDDING.search(name) and tensor.shape != (config.get("vocab_size"), hidden):
            raise ModelError(
                _another(folder, name, tensor, f"vocab_size {config.get('vocab_size')}, hidden_size {hidden}")
            )
        if _READS_HIDDEN.search(name) and tensor.shape[1] != hidden:
            raise ModelError(_another(folder, name, tensor, f"hidden_size {hidden}"))


def _another(folder: Path, name: str, tensor: TensorHeader, said: str) -> str:
    shape = " x ".join(map(str, tensor.shape))
    return (
        f"{folder}: the tensor {name} has the shape {shape}, and {folder / 'config.json'} says {said[:200]}; "
        "weights and configuration are of different models"
    )
