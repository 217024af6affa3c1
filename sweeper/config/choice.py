"""Choices over whole parts of a study: the adapter or the base model itself as a hyperparameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Discriminator, Field, Tag, model_validator

from sweeper.config.adapter import Adapter
from sweeper.config.base import Frozen
from sweeper.config.model import ModelConfig
from sweeper.config.space import Space

ONE, SEVERAL = "one", "several"
"""Tags of what a study file writes for a part: the part itself, or a choice."""

T = TypeVar("T")


class AdapterAlternative(Frozen):
    """An adapter to choose, with ranges for its parameters that hold only where it is chosen."""

    adapter: Adapter
    space: Space = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        """``qlora`` and ``{kind: qlora, space: ...}`` are alternatives as a study file writes them."""
        if isinstance(value, str):
            return {"adapter": {"kind": value}}
        if isinstance(value, dict) and "adapter" not in value:
            inner = {name: field for name, field in value.items() if name != "space"}
            return {"adapter": inner, "space": value.get("space", {})}
        return {"adapter": value} if isinstance(value, BaseModel) and not isinstance(value, cls) else value


class AdapterChoice(Frozen):
    """``adapter: {choice: [...]}``: the technique of adaptation is searched."""

    choice: tuple[AdapterAlternative, ...]

    @model_validator(mode="after")
    def _distinct(self) -> AdapterChoice:
        _require_distinct(_labels([alternative.adapter for alternative in self.choice]))
        return self

    @property
    def by_label(self) -> dict[str, AdapterAlternative]:
        """The alternatives by label: the kind, with the options that are not its defaults where kinds repeat."""
        return dict(zip(_labels([one.adapter for one in self.choice]), self.choice, strict=True))


class ModelChoice(Frozen):
    """``model: {choice: [...]}``: the base model is searched."""

    choice: tuple[ModelConfig, ...]

    @model_validator(mode="after")
    def _distinct(self) -> ModelChoice:
        _require_distinct([model.name for model in self.choice])
        return self

    @property
    def by_label(self) -> dict[str, ModelConfig]:
        """The models by name."""
        return {model.name: model for model in self.choice}


def _labels(adapters: Sequence[Adapter]) -> list[str]:
    kinds = [adapter.kind for adapter in adapters]
    return [adapter.kind if kinds.count(adapter.kind) == 1 else _described(adapter) for adapter in adapters]


def _described(adapter: Adapter) -> str:
    options = adapter.model_dump(mode="json", exclude_defaults=True, exclude={"kind"})
    return " ".join([adapter.kind, *(f"{name}={value}" for name, value in options.items())])


def _require_distinct(labels: Sequence[str]) -> None:
    if not labels:
        raise ValueError("a choice needs alternatives; found none")
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise ValueError(f"the alternatives of a choice must differ; {twice!r} is there {labels.count(twice)} times")


def _one_or_several(value: Any) -> str:
    several = "choice" in value if isinstance(value, dict) else isinstance(value, AdapterChoice | ModelChoice)
    return SEVERAL if several else ONE


OneOrMoreAdapters = Annotated[
    Annotated[Adapter, Tag(ONE)] | Annotated[AdapterChoice, Tag(SEVERAL)], Discriminator(_one_or_several)
]
OneOrMoreModels = Annotated[
    Annotated[ModelConfig, Tag(ONE)] | Annotated[ModelChoice, Tag(SEVERAL)], Discriminator(_one_or_several)
]


def pick(alternatives: Mapping[str, T], label: object) -> T:
    """Return the alternative of a label; the only one where there is nothing to choose, and so no label."""
    return next(iter(alternatives.values())) if label is None else alternatives[str(label)]


QUANTISATION = ("quantization", "double_quantization")
"""Options of an adapter that change the weights of the base below it."""


def loaded_as(adapter: Adapter) -> str:
    """Return how the base below an adapter is held in memory, for example ``dense`` or ``nf4``."""
    held: Mapping[str, Any] = {name: getattr(adapter, name) for name in QUANTISATION if hasattr(adapter, name)}
    if held.get("quantization") is None:
        return "dense"
    once = held["quantization"] != "int8" and not held.get("double_quantization", True)
    return f"{held['quantization']}{' quantised once' * once}"
