"""The base of every configuration model: frozen, and strict about unknown keys."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """An immutable value that refuses unknown keys, NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def kind_of(value: Any) -> str | None:
    """Return the tag of a member of a union, given as a mapping or a model."""
    return value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)


def kinds(union: Any) -> dict[str, Any]:
    """Return every class of a tagged union by its kind."""
    return {model.model_fields["kind"].default: model for model in get_args(get_args(union)[0])}


def word_is_kind(value: Any) -> Any:
    """``sampler: tpe`` means ``sampler: {kind: tpe}``."""
    return {"kind": value} if isinstance(value, str) else value
