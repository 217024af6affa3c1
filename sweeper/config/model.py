"""The base model to fine-tune."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from sweeper.config.base import Frozen

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Attention = Literal["auto", "sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention"]


class ModelConfig(Frozen):
    """A base model by catalogue name, Hub name or local folder.

    ``dtype`` is the compute type: ``auto`` is bfloat16 on a GPU that supports it, else float16, and on a CPU the faster
    of bfloat16 and float32, measured when the study begins.
    ``attention: auto`` is the newest Flash Attention that is installed and supported, else PyTorch's SDPA.
    ``trust_remote_code`` runs Python code that comes with the model, so only the word ``true`` enables it.
    """

    name: str = Field(min_length=1)
    revision: str | None = None
    dtype: Dtype = "auto"
    attention: Attention = "auto"
    trust_remote_code: bool = Field(default=False, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        """``model: smollm2-135m`` means ``model: {name: smollm2-135m}``."""
        return {"name": value} if isinstance(value, str) else value
