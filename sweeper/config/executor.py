"""Where trials run: one class a kind, tagged by ``kind``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sweeper.config.base import Frozen


class InlineExecutor(Frozen):
    """One trial after the other in this process, on a base model that stays loaded."""

    kind: Literal["inline"] = "inline"
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    micro_batch: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="Rows per forward pass; auto is the most that fits memory."
    )


Executor = InlineExecutor
"""The next executor is one more class here."""


class StorageConfig(Frozen):
    """The database: the SQLite file ``sweeper.db`` in ``SWEEPER_HOME``."""

    kind: Literal["sqlite"] = "sqlite"
