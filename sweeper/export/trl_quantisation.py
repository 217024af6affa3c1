"""Quantisation and compute type under TRL's command line."""

from __future__ import annotations

from typing import Any

from sweeper.config.adapter import QuantisedBase
from sweeper.export.heads import scores
from sweeper.export.source import ExportSource


def dtype(source: ExportSource) -> str:
    """Return what TRL computes in: on a quantised base it rounds a trained head to bfloat16, and float32 then fails."""
    rounded = scores(source) and source.quantised is not None and source.dtype == "float32"
    return "bfloat16" if rounded else source.dtype


def quantisation(source: ExportSource) -> dict[str, Any]:
    """Return the fields that say how the base is quantised."""
    quantised = source.quantised
    if quantised is None:
        return {"load_in_8bit": False, "load_in_4bit": False}
    if scores(source):
        return {"model_init_kwargs": {"quantization_config": _with_dense_head(source, quantised)}}
    four = {"bnb_4bit_quant_type": quantised.quantization, "use_bnb_nested_quant": quantised.double_quantization}
    return {
        "load_in_8bit": not source.four_bit,
        "load_in_4bit": source.four_bit,
        **(four if source.four_bit else {}),
    }


def _with_dense_head(source: ExportSource, quantised: QuantisedBase) -> dict[str, Any]:
    """Return transformers' own words for it: by the fields of ``ModelConfig`` TRL would quantise the new head too."""
    four = {
        "bnb_4bit_quant_type": quantised.quantization,
        "bnb_4bit_use_double_quant": quantised.double_quantization,
        "bnb_4bit_compute_dtype": dtype(source),
    }
    return {
        "quant_method": "bitsandbytes",
        **({"load_in_4bit": True, **four} if source.four_bit else {"load_in_8bit": True}),
        "llm_int8_skip_modules": ["score"],
    }
