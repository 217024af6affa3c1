"""How the model is tuned: one class a technique, tagged by ``kind``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sweeper.config.base import Frozen


class SFT(Frozen):
    """Supervised fine-tuning (instruction tuning) with TRL's ``SFTTrainer``.

    ``max_length`` is in tokens, prompt and completion together; longer rows are cut at the end.
    ``completion_only`` takes the loss on the completion only (of a conversation: on its last turn); it has no meaning
    for plain text.
    ``gradient_checkpointing: auto`` is on for CUDA and off for the CPU, where it only costs time.
    """

    kind: Literal["sft"] = "sft"
    max_length: int = Field(default=1024, ge=8)
    completion_only: bool = True
    packing: bool = False
    gradient_checkpointing: bool | Literal["auto"] = "auto"


Technique = SFT
"""The next technique is one more class here."""
