"""Facts of a base model, read from its files without loading it or importing torch."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper.errors import ModelError
from sweeper.files.atomic import write_json
from sweeper.files.checksums import sha256_of
from sweeper.models.catalogue import lookup
from sweeper.models.folder import TensorHeader, read_object, read_tensors, weight_files
from sweeper.paths import cache_folder

_NOT_LINEAR = re.compile(r"(^|[._])(embed\w*|embeddings?|wte|wpe|lm_head|embed_out|output_layer|norm|ln_\w+)$")
_HEAD = re.compile(r"(^|\.)(lm_head|embed_out|output_layer)\.weight$")
_LARGEST_SIZE = 10_000_000  # beyond any layer's width and any vocabulary
_WIDTH = ("hidden_size", "n_embd", "d_model")
_VOLATILE = ("transformers_version", "_name_or_path", "_model_name_or_path")
_FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0")
_EMBEDDING = re.compile(r"(^|\.)(embed_tokens|wte)\.weight$")
_READS_HIDDEN = re.compile(r"\.layers\.\d+\.(self_attn\.[qkv]|mlp\.(gate|up))_proj\.weight$")
"""Layers that read the residual stream, whose width is therefore their input width."""
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


@dataclass(frozen=True)
class ModelFacts:
    """A base model in numbers.

    Attributes:
        architecture: Class name, for example ``LlamaForCausalLM``.
        model_type: Family, for example ``llama``.
        max_positions: Longest sequence, in tokens, if the model names it.
        parameters: Number of weights, tied embeddings counted once.
        linear: Linear layers that adapters can target, by full name, as (in_features, out_features); neither
            embeddings nor the output head.
    """

    architecture: str
    model_type: str
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    max_positions: int | None
    parameters: int
    linear: Mapping[str, tuple[int, int]]
    tied_embeddings: bool
    license: str | None = None

    @property
    def linear_parameters(self) -> int:
        """Number of weights in the linear layers, which quantisation compresses."""
        return sum(inputs * outputs for inputs, outputs in self.linear.values())

    def targets(self, target_modules: str | tuple[str, ...] = "all-linear") -> dict[str, tuple[int, int]]:
        """Return the linear layers of ``target_modules``: all, or those whose name ends in one of them.

        Raises:
            ModelError: If a name matches no layer.
        """
        if target_modules == "all-linear":
            return dict(self.linear)
        names = (target_modules,) if isinstance(target_modules, str) else target_modules
        found = {wanted: [full for full in self.linear if f".{full}".endswith(f".{wanted}")] for wanted in names}
        for wanted, matches in found.items():
            if not matches:
                raise ModelError(self._no_such_module(wanted))
        return {full: self.linear[full] for matches in found.values() for full in matches}

    def largest_rank(self, target_modules: str | tuple[str, ...] = "all-linear") -> int:
        """Return the largest useful LoRA rank: the smallest side of any targeted layer; raises as ``targets``."""
        return min(min(shape) for shape in self.targets(target_modules).values())

    def lora_parameters(self, rank: int, target_modules: str | tuple[str, ...] = "all-linear") -> int:
        """Return the number of LoRA's weights: ``rank * (in + out)`` per layer (Hu et al. 2021, section 4.1)."""
        return sum(rank * (inputs + outputs) for inputs, outputs in self.targets(target_modules).values())

    def _no_such_module(self, wanted: str) -> str:
        known = sorted({name.rsplit(".", 1)[-1] for name in self.linear})
        close = difflib.get_close_matches(wanted, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        return f"target module {wanted!r} is not in {self.architecture}; {hint}it has {', '.join(known)}"


def read_facts(folder: Path) -> ModelFacts:
    """Return the facts in the configuration and the safetensors headers of a model folder.

    Raises:
        ModelError: If the model is unusable, its configuration lacks a size, or weights and configuration disagree.
    """
    config = read_object(folder / "config.json")
    if isinstance(config.get("text_config"), dict):
        config = {**config, **config["text_config"], "architectures": config.get("architectures")}
    tensors = read_tensors(folder)
    hidden = _size(config, folder, *_WIDTH)
    heads = _size(config, folder, "num_attention_heads", "n_head")
    head_dim = _optional(config, "head_dim") or hidden // heads
    if head_dim == 0:
        raise ModelError(f"{folder / 'config.json'}: num_attention_heads {heads:,} is more than hidden_size {hidden:,}")
    layers = _size(config, folder, "num_hidden_layers", "n_layer")
    _check_weights(folder, config, tensors, layers)
    return ModelFacts(
        architecture=_architecture(config, folder),
        model_type=str(config.get("model_type", "unknown")),
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        kv_heads=_optional(config, "num_key_value_heads") or heads,
        head_dim=head_dim,
        vocab_size=_size(config, folder, "vocab_size"),
        max_positions=_optional(config, "max_position_embeddings", "n_positions"),
        parameters=sum(tensor.size for tensor in tensors.values()),
        linear=_linear_layers(tensors),
        tied_embeddings=not any(_HEAD.search(name) for name in tensors),
        license=_license(folder),
    )


def fingerprint(folder: Path) -> str:
    """Return a SHA-256 over the configuration and the weights of a model folder.

    The library version that wrote the configuration does not affect it. Digests are cached by path, size and
    modification time, so only new files are read. Raises ModelError if the folder is not a usable model.
    """
    config = read_object(folder / "config.json")
    stable = {key: value for key, value in config.items() if key not in _VOLATILE}
    digest = hashlib.sha256(json.dumps(stable, sort_keys=True).encode())
    for file in weight_files(folder):
        digest.update(f"\n{file.name} {_file_digest(file)}".encode())
    return digest.hexdigest()


def tokenizer_fingerprint(folder: Path) -> str:
    """Return a value that is equal for models with the same ``tokenizer.json``, apart from truncation and padding.

    A model without that file equals only itself. Raises ModelError if the file is not a JSON object.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        return str(folder.resolve())
    stable = {key: value for key, value in read_object(file).items() if key not in ("truncation", "padding")}
    return hashlib.sha256(json.dumps(stable, sort_keys=True).encode()).hexdigest()


def _file_digest(file: Path) -> str:
    store = cache_folder() / "fingerprints.json"
    stat = file.stat()
    key, state = str(file.resolve()), [stat.st_size, stat.st_mtime_ns]
    try:
        known = read_object(store)
    except ModelError:  # absent or damaged: it is only a cache, and is rewritten
        known = {}
    entry = known.get(key)
    if isinstance(entry, dict) and entry.get("state") == state and isinstance(entry.get("sha256"), str):
        return str(entry["sha256"])
    found = sha256_of(file)
    kept = {path: entry for path, entry in known.items() if Path(path).exists()}
    write_json(store, {**kept, key: {"state": state, "sha256": found}})
    return found


def _linear_layers(tensors: Mapping[str, TensorHeader]) -> dict[str, tuple[int, int]]:
    layers = {}
    for name, tensor in tensors.items():
        module, _, kind = name.rpartition(".")
        if kind == "weight" and len(tensor.shape) == 2 and not _NOT_LINEAR.search(module):
            layers[module] = (tensor.shape[1], tensor.shape[0])
    return layers


def _architecture(config: dict[str, Any], folder: Path) -> str:
    found = config.get("architectures") or ["unknown"]
    if not isinstance(found, list) or not isinstance(found[0], str):
        raise ModelError(f"{folder / 'config.json'}: architectures must be a list of class names")
    return found[0]


def _size(config: dict[str, Any], folder: Path, *names: str) -> int:
    value = _optional(config, *names)
    if value is None:
        raise ModelError(f"{folder / 'config.json'} has no {names[0]}; is it a causal language model?")
    if value > _LARGEST_SIZE:
        raise ModelError(f"{folder / 'config.json'}: {names[0]} is larger than any model's; download it again")
    return value


def _optional(config: dict[str, Any], *names: str) -> int | None:
    return next((config[name] for name in names if type(config.get(name)) is int and config[name] > 0), None)


def _license(folder: Path) -> str | None:
    """Return the recorded licence of a converted model, or that of one in the Hub's ``models--owner--name``."""
    if (folder / "sweeper.json").is_file():
        recorded: str | None = read_object(folder / "sweeper.json").get("license")
        return recorded
    repo = next((part for part in folder.parts if part.startswith("models--")), "")
    entry = lookup(repo.removeprefix("models--").replace("--", "/")) if repo else None
    return entry.license if entry is not None else None


def _check_weights(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, TensorHeader], layers: int) -> None:
    """Refuse weights whose layers, shapes or types contradict the configuration.

    Quantised weights are packed in other shapes and types, and not checked here.
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
                f"{folder}: the tensor {name} has type {tensor.dtype}, but weights are floating-point numbers; save or "
                "download the model again"
            )


def _check_layers(folder: Path, tensors: Mapping[str, TensorHeader], layers: int) -> None:
    found = {int(match[1]) for name in tensors if (match := _LAYER.search(name))}
    if found and layers > len(found):
        raise ModelError(
            f"{folder / 'config.json'} has num_hidden_layers {layers:,}, but the weights have {len(found):,}; weights "
            "and configuration belong to different models, or some weights are missing"
        )


def _check_shapes(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, TensorHeader]) -> None:
    if "text_config" in config or config.keys() & {"word_embed_proj_dim", "embedding_size"}:
        return  # several towers, or embeddings of another width
    hidden = next((config[name] for name in _WIDTH if name in config), None)
    for name, tensor in tensors.items():
        if len(tensor.shape) != 2:
            continue
        if _EMBEDDING.search(name) and tensor.shape != (config.get("vocab_size"), hidden):
            raise _mismatch(folder, name, tensor, f"vocab_size {config.get('vocab_size')}, hidden_size {hidden}")
        if _READS_HIDDEN.search(name) and tensor.shape[1] != hidden:
            raise _mismatch(folder, name, tensor, f"hidden_size {hidden}")


def _mismatch(folder: Path, name: str, tensor: TensorHeader, expected: str) -> ModelError:
    shape = " x ".join(map(str, tensor.shape))
    return ModelError(
        f"{folder}: the tensor {name} has the shape {shape}, but {folder / 'config.json'} has {expected[:200]}; "
        "weights and configuration belong to different models"
    )
