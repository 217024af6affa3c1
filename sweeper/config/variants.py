"""The adapters that a study's trials may have: its own, with every combination of the options that its space names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Annotated, Any, get_args

from pydantic import TypeAdapter, ValidationError

from sweeper.config.adapter import ADAPTERS, Adapter, AnyAdapter
from sweeper.config.parameters import LORA_PARAMETERS
from sweeper.config.space import Choice, FloatRange, IntRange, Range, is_active

_ABSENT = object()


def variants(adapter: Adapter, space: Mapping[str, Range]) -> Iterator[Adapter]:
    """Yield every adapter that a trial may have; of a range only its ends.

    Raises:
        ValidationError: When it comes to a combination that is not allowed.
    """
    searched = {name: space[name] for name in space if name in adapter.options()}
    for values in product(*map(_values, searched.values())):
        named = dict(zip(searched, values, strict=True))
        chosen = {name: value for name, value in named.items() if value is not _ABSENT}
        if all(_holds(searched[name], value, chosen, searched) for name, value in named.items()):
            yield adapter.with_options(chosen)


def option_fault(adapter: AnyAdapter, name: str, range_: Range) -> str | None:
    """Return why a range is none for an option of the adapter, or None where it is one."""
    field = type(adapter).model_fields[name]
    types = get_args(field.annotation) or (field.annotation,)
    numeric = {int, float} & set(types)
    if isinstance(range_, FloatRange | IntRange) and not numeric:
        return "must be a value or a choice, not a range"
    if isinstance(range_, FloatRange) and float not in numeric:
        return f"must be an integer range; found {range_.low:g} to {range_.high:g}"
    by_itself: TypeAdapter[Any] = TypeAdapter(Annotated[field.annotation, field])  # type: ignore[arg-type]
    for value in range_.choice if isinstance(range_, Choice) else range_.corners():
        try:
            by_itself.validate_python(value)
        except ValidationError as error:
            text = error.errors(include_url=False)[0]["msg"].replace("Input should be", "must be")
            return f"{text}; found {value!r}"
    return None


def combination_fault(adapter: Adapter, space: Mapping[str, Range]) -> tuple[str, str] | None:
    """Return an option and why it cannot be combined with others as the space has it; None where all can."""
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
    """Return why a name that belongs to adapters cannot be searched with this one; None where it belongs to none."""
    own = ", ".join(sorted(adapter.options())) or "none"
    if name in LORA_PARAMETERS and name not in adapter.hyperparameters:
        having = ", ".join(kind for kind, other in ADAPTERS.items() if name in other.hyperparameters)
        return f"belongs to {having}, and the study's adapter is {adapter.kind}; its own options are: {own}"
    if name in ("quantization", "double_quantization") and name in type(adapter).model_fields:
        return "is how the base is loaded, once for all trials; name it under adapter"
    others = [kind for kind, other in ADAPTERS.items() if name in other.options()]
    if others and name not in adapter.options():
        theirs = " and ".join(others)
        return f"is an option of {theirs}, and the study's adapter is {adapter.kind}; its own options are: {own}"
    return None


def _values(range_: Range) -> tuple[Any, ...]:
    values = range_.choice if isinstance(range_, Choice) else range_.corners()
    return (*values, _ABSENT) if range_.when else values


def _holds(range_: Range, value: Any, chosen: Mapping[str, Any], searched: Mapping[str, Range]) -> bool:
    """Return whether an option may have a value, or be absent, beside the others that are chosen."""
    on_options = {parent: allowed for parent, allowed in range_.when.items() if parent in searched}
    active = is_active(range_.model_copy(update={"when": on_options}), chosen)
    elsewhere = len(on_options) < len(range_.when)  # whether conditions on other parameters hold is not known here
    return not active or elsewhere if value is _ABSENT else active
