"""Choices over whole parts of a study (adapter, base model), and the adapters that trials may then have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, Discriminator, Field, Tag, TypeAdapter, ValidationError, model_validator

from sweeper.config.adapter import ADAPTERS, Adapter, AnyAdapter, QuantisedBase
from sweeper.config.base import Frozen
from sweeper.config.model import ModelConfig
from sweeper.config.parameters import LORA_PARAMETERS
from sweeper.config.space import FloatRange, IntRange, Range, Space, is_active, listed

ONE, SEVERAL = "one", "several"
"""Tags of a part of a study file: the part itself, or a choice."""

T = TypeVar("T")


class AdapterAlternative(Frozen):
    """An adapter to choose, with ranges that hold only if it is chosen."""

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
    """``adapter: {choice: [...]}``: the adapter is searched."""

    choice: tuple[AdapterAlternative, ...]

    @model_validator(mode="after")
    def _distinct(self) -> AdapterChoice:
        _require_distinct(_labels([alternative.adapter for alternative in self.choice]))
        return self

    @property
    def by_label(self) -> dict[str, AdapterAlternative]:
        """The alternatives by label: the kind, with its non-default options if kinds repeat."""
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
    """Return the alternative of a label; the only one if there is no label."""
    return next(iter(alternatives.values())) if label is None else alternatives[str(label)]


def loaded_as(adapter: Adapter) -> str:
    """Return the form of an adapter's base in memory, for example ``dense`` or ``nf4``."""
    if not isinstance(adapter, QuantisedBase) or adapter.quantization is None:
        return "dense"
    once = adapter.quantization != "int8" and not adapter.double_quantization
    return f"{adapter.quantization}{' quantised once' * once}"


_ABSENT = object()


def variants(adapter: Adapter, space: Mapping[str, Range]) -> Iterator[Adapter]:
    """Yield every adapter that a trial may have; of a range only its ends.

    Raises:
        ValidationError: On reaching a combination that is not allowed.
    """
    searched = {name: space[name] for name in space if name in adapter.options()}
    for values in product(*map(_option_values, searched.values())):
        named = dict(zip(searched, values, strict=True))
        chosen = {name: value for name, value in named.items() if value is not _ABSENT}
        if all(_holds(searched[name], value, chosen, searched) for name, value in named.items()):
            yield adapter.with_options(chosen)


def option_fault(adapter: AnyAdapter, name: str, range_: Range) -> str | None:
    """Return why an option of the adapter cannot have this range, or None."""
    field = type(adapter).model_fields[name]
    if fault := interval_fault(range_, set(get_args(field.annotation) or (field.annotation,))):
        return fault
    by_itself: TypeAdapter[Any] = TypeAdapter(Annotated[field.annotation, field])  # type: ignore[arg-type]
    for value in listed(range_):
        try:
            by_itself.validate_python(value)
        except ValidationError as error:
            text = error.errors(include_url=False)[0]["msg"].replace("Input should be", "must be")
            return f"{text}; found {value!r}"
    return None


def interval_fault(range_: Range, types: set[Any]) -> str | None:
    """Return why a value of one of these types cannot be searched over this range, or None."""
    if isinstance(range_, FloatRange | IntRange) and not types & {int, float}:
        return "must be a value or a choice, not a range"
    if isinstance(range_, FloatRange) and float not in types:
        return f"must be an integer range; found {range_.low:g} to {range_.high:g}"
    return None


def combination_fault(adapter: Adapter, space: Mapping[str, Range]) -> tuple[str, str] | None:
    """Return an option that the space combines with others in a way that is not allowed, and why; None if all are."""
    try:
        for _ in variants(adapter, space):
            pass
    except ValidationError as error:
        (detail, *_) = error.errors(include_url=False)
        message = str(detail.get("ctx", {}).get("error", detail["msg"]))
        searched = [name for name in space if name in adapter.options()]
        return next((name for name in searched if name in message), searched[0]), message
    return None


def foreign_fault(adapter: AnyAdapter, name: str) -> str | None:
    """Return why a parameter of other adapters cannot be searched with this one; None if it is not theirs."""
    own = ", ".join(sorted(adapter.options())) or "none"
    if name in LORA_PARAMETERS and name not in adapter.hyperparameters:
        having = ", ".join(kind for kind, other in ADAPTERS.items() if name in other.hyperparameters)
        return f"belongs to {having}, and the study's adapter is {adapter.kind}; its own options are: {own}"
    if name in ("quantization", "double_quantization") and name in type(adapter).model_fields:
        return "applies to the base, which all trials share; set it under adapter"
    others = [kind for kind, other in ADAPTERS.items() if name in other.options()]
    if others and name not in adapter.options():
        theirs = " and ".join(others)
        return f"is an option of {theirs}, and the study's adapter is {adapter.kind}; its own options are: {own}"
    return None


def _option_values(range_: Range) -> tuple[Any, ...]:
    return (*listed(range_), _ABSENT) if range_.when else listed(range_)


def _holds(range_: Range, value: Any, chosen: Mapping[str, Any], searched: Mapping[str, Range]) -> bool:
    """Return whether an option may have a value, or be absent, given the other chosen options."""
    on_options = {parent: allowed for parent, allowed in range_.when.items() if parent in searched}
    active = is_active(range_.model_copy(update={"when": on_options}), chosen)
    elsewhere = len(on_options) < len(range_.when)  # conditions on other parameters cannot be decided here
    return not active or elsewhere if value is _ABSENT else active
