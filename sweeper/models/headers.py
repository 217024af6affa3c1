"""Safetensors headers: names, types and shapes of tensors without reading a weight."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper.errors import ModelError

_LONGEST_HEADER = 100_000_000  # bytes, the limit of the safetensors library itself
_BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
_BITS |= dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8)
_BITS |= dict.fromkeys(("I16", "U16", "F16", "BF16"), 16)
_BITS |= dict.fromkeys(("I32", "U32", "F32"), 32)
_BITS |= dict.fromkeys(("I64", "U64", "F64", "C64"), 64)


@dataclass(frozen=True)
class TensorHeader:
    """One tensor as the header describes it: ``dtype`` in safetensors' words, and the shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def read_headers(path: Path) -> dict[str, TensorHeader]:
    """Return the tensors of a safetensors file by name, after checking that the header fits the file.

    Checked as the format's specification asks: the header ends within the file, every tensor has as many bytes as
    its type and shape need, and the tensors fill the rest of the file without gap or overlap.

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
    """Readers differ in which of two entries of one name they take."""
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
