"""What is trained beside the frozen base: one class an adapter, tagged by ``kind``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sweeper.config.base import Frozen


class LoRA(Frozen):
    """Low-rank adapters on a dense base (Hu et al. 2021, arXiv:2106.09685)."""

    kind: Literal["lora"] = "lora"
    rslora: bool = Field(default=False, description="Scale by alpha / sqrt(rank) instead of alpha / rank.")


class QLoRA(Frozen):
    """Low-rank adapters on a base quantised with bitsandbytes (Dettmers et al. 2023, arXiv:2305.14314)."""

    kind: Literal["qlora"] = "qlora"
    quantization: Literal["nf4", "fp4", "int8"] = "nf4"
    double_quantization: bool = True
    rslora: bool = Field(default=False, description="Scale by alpha / sqrt(rank) instead of alpha / rank.")


Adapter = Annotated[LoRA | QLoRA, Field(discriminator="kind")]
"""An adapter as a study file names it."""
