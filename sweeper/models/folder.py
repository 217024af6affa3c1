"""The files of a base model folder: required ones, safetensors headers without a weight read, and refused ones."""

from __future__ import annotations

import json
import math
import stat
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

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
_CONVERT = (
    "load it where you trust its source and save it again with "
    "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)"
)
_LONGEST_HEADER = 100_000_000  # bytes, the limit of the safetensors library itself
_BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
_BITS |= dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8)
_BITS |= dict.fromkeys(("I16", "U16", "F16", "BF16"), 16)
_BITS |= dict.fromkeys(("I32", "U32", "F32"), 32)
_BITS |= dict.fromkeys(("I64", "U64", "F64", "C64"), 64)


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
            raise ModelError(f"{path} is too large to be what its name says")
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
    """Return every tensor of a model folder by name, from the headers alone; raises as the two functions it calls."""
    return {name: tensor for file in weight_files(folder) for name, tensor in read_headers(file).items()}


def check_folder(folder: Path, *, trust_remote_code: bool = False) -> None:
    """Check that a folder holds a base model that is safe and complete enough to load.

    Raises:
        ModelError: At the first fault: no configuration, code that the study does not trust, pickled, missing or
            broken weights, no tokenizer.
    """
    if not (folder / "config.json").is_file() and (folder / "adapter_config.json").is_file():
        raise ModelError(f"{folder} holds an adapter, not a base model; name the base model it was trained on")
    read_object(folder / "config.json")
    for name in _SETTINGS:
        if not trust_remote_code and (folder / name).exists() and _asks_for_code(read_object(folder / name)):
            raise ModelError(
                f"{folder / name} asks to run Python code that comes with the model (auto_map); if you trust it, "
                "set model.trust_remote_code: true in the study"
            )
    read_tensors(folder)
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise ModelError(f"{folder} has no tokenizer; copy the model's {_TOKENIZERS[0]} into it")


def _asks_for_code(settings: dict[str, Any]) -> bool:
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
        return f"{folder} holds an adapter, not a base model; name the base model it was trained on"
    pickles = [path.name for pattern in _PICKLES for path in folder.glob(pattern)]
    if pickles:
        return f"{folder} has only pickled weights ({pickles[0]}), which can run code when loaded: refused; {_CONVERT}"
    return f"{folder} has no weights: neither {_SINGLE} nor {_INDEX}"


def read_headers(path: Path) -> dict[str, TensorHeader]:
    """Return the tensors of a safetensors file by name.

    As the format's specification asks, the header must end within the file, every tensor must have as many bytes as
    its type and shape need, and the tensors must fill the rest of the file without gap or overlap.

    Raises:
        ModelError: If the file is not sound safetensors.
    """
    try:
        header, data_bytes = _json_header(path)
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        spans = sorted(_span(name, entry) for name, entry in tensors.items())
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ModelError(f"{path} is not a sound safetensors file: {error}; download or save it again") from error
    end = 0
    for begin, stop, name in spans:
        if begin != end:
            fault = "overlaps another tensor" if begin < end else "leaves a gap before it"
            raise ModelError(f"{path} is not a sound safetensors file: tensor {name!r} {fault}")
        end = stop
    if end != data_bytes:
        raise ModelError(
            f"{path} is not a sound safetensors file: its tensors need {end:,} bytes and it holds {data_bytes:,}; "
            "it may have been cut short; download or save it again"
        )
    return {name: TensorHeader(entry["dtype"], tuple(entry["shape"])) for name, entry in tensors.items()}


def _json_header(path: Path) -> tuple[dict[str, Any], int]:
    total = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if total < 8 or length > min(total - 8, _LONGEST_HEADER):
            raise ValueError(f"its header claims {length:,} bytes in a file of {total:,}")
        header = json.loads(file.read(length), object_pairs_hook=_distinct)
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    return header, total - 8 - length


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse two entries of one name: readers differ in which they take."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


def _span(name: str, entry: dict[str, Any]) -> tuple[int, int, str]:
    dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in _BITS:
        raise ValueError(f"tensor {name!r} has the unknown type {dtype!r}")
    if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
        raise ValueError(f"tensor {name!r} has a shape or an offset that is no whole number")
    if (end - begin) * 8 != math.prod(shape) * _BITS[dtype]:
        raise ValueError(f"tensor {name!r} has {end - begin:,} bytes, which do not fit {dtype} {shape}")
    return begin, end, name
