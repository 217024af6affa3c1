"""Where trials run: one class a kind, tagged by ``kind``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from sweeper.config.base import Frozen, kind_of, word_is_kind

Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]

MicroBatch = Annotated[int, Field(ge=1)] | Literal["auto"]
"""Rows of one trial per forward pass; auto is the most that fits memory."""


class Lasting(Frozen):
    """What every executor does about workers that fall silent.

    Attributes:
        max_retries: How many workers in a row may die with a trial, without a checkpoint in between, before it is
            failed and not given to another.
        grace_s: Seconds a worker may be silent before others take over what it runs; on one machine a process that is
            gone is noticed at once.
        checkpoint_s: Seconds between two checkpoints of a running trial; 0 is one after every step.
        stall_timeout_s: Seconds without a step after which a worker hangs and is ended; null is never.
    """

    max_retries: Annotated[int, Field(ge=0, le=1_000)] = 3
    grace_s: Annotated[float, Field(ge=1, le=3_600)] = 30.0
    checkpoint_s: Annotated[float, Field(ge=0)] = 300.0
    stall_timeout_s: Annotated[float, Field(gt=0)] | None = 1_800.0


class PackedExecutor(Lasting):
    """Many trials at once in this process, in the same forward and backward pass over one base model.

    Attributes:
        slots: Most trials at once; auto is a third of the study's trials, so that the search still learns from some
            before it chooses others, but no more than memory holds, and not above 8.
    """

    kind: Literal["packed"] = "packed"
    slots: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = "auto"
    device: Device = "auto"
    micro_batch: MicroBatch = "auto"


class InlineExecutor(Lasting):
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
