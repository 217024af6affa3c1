"""Data settings: sources, columns and splits."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from sweeper.config.base import Frozen

DataFormat = Literal[
    "auto", "messages", "prompt_completion", "alpaca", "text", "preference", "unpaired_preference", "prompt"
]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Files = Annotated[tuple[str, ...], BeforeValidator(_as_list), Field(min_length=1)]


class DataConfig(Frozen):
    """Training, validation and test examples.

    A source is a JSONL, JSON, CSV or Parquet file, a folder written by ``datasets``, or a Hub data set
    (``owner/name`` or ``owner/name:split``). Relative paths start at the study file's folder. Splits that are
    not named are taken from ``train`` by a hash of each row's prompt, so that rows of one prompt stay together and stay
    where they are when rows are added.
    """

    train: Files
    validation: Files | None = None
    test: Files | None = None
    format: DataFormat = "auto"
    columns: dict[str, str] = Field(
        default_factory=dict, description="Renames: sweeper's name of a column to the file's."
    )
    group: str | None = Field(default=None, description="A column whose equal values stay in one split.")
    skip_invalid: bool = Field(default=False, description="Leave out rows that do not fit instead of refusing them.")
    validation_fraction: float = Field(default=0.1, gt=0, lt=0.9)
    test_fraction: float = Field(default=0.1, gt=0, lt=0.9)
    train_rows: int | None = Field(default=None, ge=1, description="Use at most this many training rows.")
    validation_rows: int | None = Field(default=None, ge=1, description="Use at most this many validation rows.")
    test_rows: int | None = Field(default=None, ge=1, description="Use at most this many test rows.")

    @model_validator(mode="after")
    def _fractions_leave_some(self) -> DataConfig:
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction and test_fraction must leave something to train on")
        return self
