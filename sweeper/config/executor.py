"""Where trials run: one class a kind, tagged by ``kind``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from sweeper.config.base import Frozen, kind_of, word_is_kind

Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]

MicroBatch = Annotated[int, Field(ge=1)] | Literal["auto"]
"""Rows of one trial per forward pass; auto is the most that fits memory."""


class PackedExecutor(Frozen):
    """Many trials at once in this process, in the same forward and backward pass over one base model.

    Attributes:
        slots: Most trials at once; auto is a third of the study's trials, so that the search still learns from some
            before it chooses others, but no more than memory holds, and not above 8.
    """

    kind: Literal["packed"] = "packed"
    slots: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = "auto"
    device: Device = "auto"
    micro_batch: MicroBatch = "auto"


class InlineExecutor(Frozen):
    """One trial after the other in this process, on a base model that stays loaded."""

    kind: Literal["inline"] = "inline"
    device: Device = "auto"
    micro_batch: MicroBatch = "auto"


def _packed_unless_said(value: Any) -> Any:
    """``executor: {device: cpu}`` means the packed one."""
    return {"kind": "packed", **value} if isinstance(value, dict) and "kind" not in value else value


Executor = Annotated[
    Annotated[PackedExecutor, Tag("packed")] | Annotated[InlineExecutor, Tag("inline")],
    Discriminator(kind_of),
    BeforeValidator(_packed_unless_said),
    BeforeValidator(word_is_kind),
]
"""The next executor is one more class here."""
