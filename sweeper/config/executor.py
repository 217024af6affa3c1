"""Where trials run: one class a kind, tagged by ``kind``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from sweeper.config.base import Frozen, kind_of, word_is_kind

Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]

MicroBatch = Annotated[int, Field(ge=1)] | Literal["auto"]
"""Rows of one trial per forward pass; auto is the most that fits memory."""


class Enduring(Frozen):
    """What every executor does about processes that die or hang.

    Attributes:
        max_retries: How often a trial that lost its process is gone on with, or begun again; then it has failed.
        grace_s: Seconds without a sign of life after which another process takes over what one was running.
        checkpoint_s: Seconds of training after which a trial's whole state is written to disk again; 0 is after every
            step. It is written when a study is stopped, too.
        stall_timeout_s: Seconds without a step after which what trains is taken to hang and is ended; null is never.
    """

    max_retries: Annotated[int, Field(ge=0)] = 3
    grace_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    checkpoint_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 300.0
    stall_timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = 1800.0


class PackedExecutor(Enduring):
    """Many trials at once in this process, in the same forward and backward pass over one base model.

    Attributes:
        slots: Most trials at once; auto is a third of the study's trials, so that the search still learns from some
            before it chooses others, but no more than memory holds, and not above 8.
    """

    kind: Literal["packed"] = "packed"
    slots: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = "auto"
    device: Device = "auto"
    micro_batch: MicroBatch = "auto"


class InlineExecutor(Enduring):
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


class StorageConfig(Frozen):
    """The database: the SQLite file ``sweeper.db`` in ``SWEEPER_HOME``."""

    kind: Literal["sqlite"] = "sqlite"
