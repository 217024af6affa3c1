"""The files of a base model folder: required ones, refused ones, and safetensors headers."""

from __future__ import annotations

import json
import math
import stat
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from safetensors import SafetensorError, safe_open

from sweeper.errors import ModelError

_LARGEST_JSON = 64 << 20  # bytes; the largest index in use is well below 10 MB
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
_SETTINGS = (
    "config.json",
    "tokenizer_config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
)
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_IS_ADAPTER = "{} holds an adapter, not a base model; name the base model it was trained on"
_CONVERT = (
    "load it where you trust its source and save it again with "
    "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)"
)


@dataclass(frozen=True)
class TensorHeader:
    """A tensor's type, in safetensors' terms, and shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file; ModelError if it is missing, too large, not JSON, or not an object."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ModelError(f"{path} is not a regular file")
        if found.st_size > _LARGEST_JSON:
            raise ModelError(f"{path} is too large for such a file")
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ModelError(f"{path.parent} has no {path.name}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} must hold a JSON object; found {type(value).__name__}")
    return value


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the safetensors files of a model folder, one or several shards.

    Raises:
        ModelError: If there are none, a shard is missing, or the weights are pickles.
    """
    if (folder / _SINGLE).is_file():
        return (folder / _SINGLE,)
    if not (folder / _INDEX).is_file():
        raise ModelError(_no_weights(folder))
    shards = read_object(folder / _INDEX).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise ModelError(f"{folder / _INDEX} has no usable weight_map")
    names = sorted(set(shards.values()))
    for name in names:
        if PurePath(name).name != name or "\\" in name:
            raise ModelError(f"{folder / _INDEX} names a file outside its folder: {name!r}")
        if not (folder / name).is_file():
            raise ModelError(f"{folder} has no {name}, which its index names; complete the download")
    return tuple(folder / name for name in names)


def read_tensors(folder: Path) -> dict[str, TensorHeader]:
    """Return every tensor of a model folder by name, from the headers; ModelError if they are not sound."""
    return {name: tensor for file in weight_files(folder) for name, tensor in read_headers(file).items()}


def check_folder(folder: Path, *, trust_remote_code: bool = False) -> None:
    """Check that a folder holds a base model that is safe and complete enough to load.

    Raises:
        ModelError: At the first fault: no configuration, untrusted code, pickled, missing or broken weights, no
            tokenizer.
    """
    if not (folder / "config.json").is_file() and (folder / "adapter_config.json").is_file():
        raise ModelError(_IS_ADAPTER.format(folder))
    read_object(folder / "config.json")
    for name in _SETTINGS:
        if not trust_remote_code and (folder / name).exists() and _names_code(read_object(folder / name)):
            raise ModelError(
                f"{folder / name} requires Python code that comes with the model (auto_map); if you trust it, "
                "set model.trust_remote_code: true in the study"
            )
    read_tensors(folder)
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise ModelError(f"{folder} has no tokenizer; copy the model's {_TOKENIZERS[0]} into it")


def _names_code(settings: dict[str, Any]) -> bool:
    """Return whether a settings file names code, at any depth."""
    waiting: list[Any] = [settings]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "auto_map" in value:
                return True
            waiting += value.values()
    return False


def _no_weights(folder: Path) -> str:
    if (folder / "adapter_model.safetensors").is_file():
        return _IS_ADAPTER.format(folder)
    pickles = [path.name for pattern in _PICKLES for path in folder.glob(pattern)]
    if pickles:
        return f"{folder} has only pickled weights ({pickles[0]}), which can run code when loaded: refused; {_CONVERT}"
    return f"{folder} has no weights: neither {_SINGLE} nor {_INDEX}"


def read_headers(path: Path) -> dict[str, TensorHeader]:
    """Return the tensors of a safetensors file by name; the library checks that they fill the file without overlap.

    Raises:
        ModelError: If the file is not sound safetensors.
    """
    try:
        with safe_open(path, "np") as file:
            slices = {name: file.get_slice(name) for name in file.offset_keys()}
            return {name: TensorHeader(part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{path} is not a sound safetensors file: {error}; if it was cut short, download or save it again"
        ) from error
