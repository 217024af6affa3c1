"""Search ranges: a float, an int, a choice or a fixed value, each possibly conditional on other parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal, Self, TypeGuard, TypeVar

from pydantic import BeforeValidator, Field, TypeAdapter, model_validator

from sweeper.config.base import Frozen
from sweeper.config.parameters import PARAMETERS, Scalar

ChoiceValue = Scalar | tuple[str, ...] | None
When = dict[str, tuple[ChoiceValue, ...]]
V = TypeVar("V")


class _Range(Frozen):
    when: When = Field(default_factory=dict, description="Only if these parameters have one of these values.")

    @model_validator(mode="before")
    @classmethod
    def _single_values(cls, data: Any) -> Any:
        """``when: {lora_rank: 8}`` means ``when: {lora_rank: [8]}``."""
        if isinstance(data, dict) and isinstance(data.get("when"), dict):
            when = {k: v if isinstance(v, list | tuple) else [v] for k, v in data["when"].items()}
            return {**data, "when": when}
        return data


class _Interval(_Range):
    kind: str
    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        low, high = self.low, self.high
        if low > high:
            raise ValueError(f"low must not be above high; found low {low:g}, high {high:g}")
        if self.log and low <= 0:
            raise ValueError(f"a log range must begin above 0; found low {low:g}")
        return self

    def corners(self) -> tuple[Any, ...]:
        """Return the extreme values, for what can be known before training."""
        return (self.low, self.high)


class FloatRange(_Interval):
    """A real number between ``low`` and ``high``, both included."""

    kind: Literal["float"] = "float"

    def contains(self, value: Any) -> bool:
        """Return whether a trial may have this value."""
        return _is_number(value) and self.low <= value <= self.high

    def clip(self, value: Any) -> Any:
        """Return the nearest value of the range."""
        return min(max(float(value), self.low), self.high)


class IntRange(_Interval):
    """A whole number between ``low`` and ``high``, both included, in steps of ``step``."""

    kind: Literal["int"] = "int"
    low: int
    high: int
    step: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _log_has_no_step(self) -> IntRange:
        if self.log and self.step != 1:
            raise ValueError("a log range has no step; leave step out, or list the values as a choice")
        return self

    def contains(self, value: Any) -> bool:
        """Return whether a trial may have this value."""
        if not _is_number(value) or not math.isfinite(value):
            return False
        return value == int(value) and self.low <= value <= self.high and (int(value) - self.low) % self.step == 0

    def clip(self, value: Any) -> Any:
        """Return the nearest value of the range."""
        bounded = min(max(round(value), self.low), self.high)
        return self.low + round((bounded - self.low) / self.step) * self.step


class Choice(_Range):
    """One of the listed values."""

    kind: Literal["choice"] = "choice"
    choice: tuple[ChoiceValue, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> Choice:
        if len({repr(value) for value in self.choice}) != len(self.choice):
            raise ValueError(f"the values of a choice must differ; found {list(self.choice)}")
        return self

    def contains(self, value: Any) -> bool:
        """Return whether a trial may have this value."""
        return any(_is_same(value, listed) for listed in self.choice)

    def clip(self, value: Any) -> Any:
        """Return the nearest value of the choice; the first if its values are not numbers."""
        same = [listed for listed in self.choice if _is_same(value, listed)]
        if same:
            return same[0]
        numbers = [v for v in self.choice if _is_number(v)]
        if isinstance(value, int | float) and len(numbers) == len(self.choice):
            return min(numbers, key=lambda v: abs(_log_or_plain(v) - _log_or_plain(value)))
        return self.choice[0]

    def corners(self) -> tuple[Any, ...]:
        """Return the extreme values, for what can be known before training."""
        numbers = [v for v in self.choice if _is_number(v)]
        return (min(numbers), max(numbers)) if len(numbers) == len(self.choice) else self.choice


class Fixed(_Range):
    """Not searched: every trial has this value."""

    kind: Literal["fixed"] = "fixed"
    value: ChoiceValue

    def contains(self, value: Any) -> bool:
        """Return whether a trial may have this value."""
        return _is_same(value, self.value)

    def clip(self, value: Any) -> Any:
        """Return the value."""
        return self.value

    def corners(self) -> tuple[Any, ...]:
        """Return the extreme values, for what can be known before training."""
        return (self.value,)


def as_range(value: object) -> Range:
    """Return a range as a preset or study file writes it; ValidationError if it is not one."""
    return _RANGE.validate_python(value)


def listed(range_: Range) -> tuple[Any, ...]:
    """Return the values of a choice, or the extreme values of another range."""
    return range_.choice if isinstance(range_, Choice) else range_.corners()


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_same(value: Any, listed: Any) -> bool:
    """Return whether a value is the listed one: a list, as from JSON, is the tuple; unlike in Python, 1 is not True."""
    value = tuple(value) if isinstance(value, list) else value
    return bool(value == listed) and isinstance(value, bool) == isinstance(listed, bool)


def _log_or_plain(value: float) -> float:
    return math.log(value) if value > 0 else value


def _shorthand(value: Any) -> Any:
    """``0.1`` is fixed, ``[8, 16]`` is a choice, and low/high is an int range if both are whole numbers."""
    if isinstance(value, list | tuple):
        return {"kind": "choice", "choice": value}
    if not isinstance(value, Mapping):
        return value if isinstance(value, Frozen) else {"kind": "fixed", "value": value}
    if "kind" in value:
        return value
    if "choice" in value:
        return {"kind": "choice", **value}
    if "value" in value:
        return {"kind": "fixed", **value}
    whole = all(isinstance(value.get(end), int) and _is_number(value[end]) for end in ("low", "high"))
    return {"kind": "int" if whole else "float", **value}


Range = Annotated[
    FloatRange | IntRange | Choice | Fixed,
    Field(discriminator="kind"),
    BeforeValidator(_shorthand),
]
"""One parameter's range as a study file or a preset writes it."""

_RANGE: TypeAdapter[Range] = TypeAdapter(Range)


def _typed(value: Any) -> Any:
    """Let a parameter's type decide where the spelling does not say.

    ``weight_decay: {low: 0, high: 1}`` is a real range, although both bounds are whole; epochs may be fractions, but
    whole bounds mean whole ones. ``target_modules: [q_proj, v_proj]`` is one set of modules, as in PEFT.
    """
    return (
        {name: _typed_range(bare(str(name)), given) for name, given in value.items()}
        if isinstance(value, dict)
        else value
    )


def _typed_range(name: str, given: Any) -> Any:
    parameter = PARAMETERS.get(name)
    if parameter is None:
        return given
    if (
        parameter.type == "float"
        and name != "epochs"
        and isinstance(given, Mapping)
        and {"low", "high"} <= given.keys()
    ):
        return given if "kind" in given or "step" in given else {"kind": "float", **given}
    is_set = isinstance(given, list | tuple) and all(isinstance(each, str) and each != "all-linear" for each in given)
    return {"kind": "fixed", "value": given} if parameter.type == "modules" and is_set and given else given


Space = Annotated[dict[str, Range], BeforeValidator(_typed)]
"""Ranges by parameter name."""

ADAPTER, MODEL = "adapter", "model"
"""The parameters that choose whole parts of a study; their values are labels of alternatives."""


def scoped(label: str, name: str) -> str:
    """Return the name of a parameter specific to one alternative: ``qlora.learning_rate``."""
    return f"{label}.{name}"


def bare(name: str) -> str:
    """Return a parameter's name without its alternative."""
    return name.rpartition(".")[2]


def ranges_of(space: Mapping[str, Range], name: str) -> tuple[Range, ...]:
    """Return every range of a parameter: its own, and those of single alternatives."""
    return tuple(range_ for full, range_ in space.items() if bare(full) == name)


def definite(values: Mapping[str, V]) -> dict[str, V]:
    """Return a trial's values by bare name, without those that choose alternatives."""
    return {bare(name): value for name, value in values.items() if name not in (ADAPTER, MODEL)}


def space_of(space: Mapping[str, Range], chosen: Mapping[str, str]) -> Space:
    """Return the part of a space that applies to the chosen alternatives, as if a study had only these."""
    return {
        bare(name): range_.model_copy(
            update={"when": {bare(parent): values for parent, values in range_.when.items() if parent not in chosen}}
        )
        for name, range_ in space.items()
        if name not in chosen and all(chosen.get(k, v[0]) in v for k, v in range_.when.items())
    }


def in_order(space: Mapping[str, Range]) -> tuple[str, ...]:
    """Return the names of ``space``, every parameter after those that its ``when`` depends on.

    Raises:
        ValueError: If a ``when`` depends on a parameter outside the space, or parameters depend on each other.
    """
    faults = space_faults(space)
    if faults:
        raise ValueError("; ".join(f"{name}: {message}" for name, message in faults))
    return tuple(TopologicalSorter({name: range_.when for name, range_ in space.items()}).static_order())


def is_active(range_: Range, values: Mapping[str, Any]) -> bool:
    """Return whether a parameter has a value, given the values of those before it."""
    return all(name in values and values[name] in allowed for name, allowed in range_.when.items())


def space_faults(space: Mapping[str, Range]) -> list[tuple[str, str]]:
    """Return the faults of a space's conditions, as pairs of parameter and message."""
    faults = [(name, message) for name, range_ in space.items() for message in _when_faults(range_.when, space)]
    known = {name: [parent for parent in range_.when if parent in space] for name, range_ in space.items()}
    try:
        TopologicalSorter(known).prepare()
    except CycleError as error:
        circle = list(reversed(error.args[1]))
        faults.append((circle[0], f"depends on itself: {' -> '.join(circle)}; remove one of these conditions"))
    return faults


def _when_faults(when: When, space: Mapping[str, Range]) -> Iterator[str]:
    for parent, allowed in when.items():
        if parent not in space:
            yield f"when depends on {parent}, which is not in the space; it has {', '.join(sorted(space))}"
            continue
        for value in allowed:
            if not space[parent].contains(value):
                yield f"when requires {parent} to be {value!r}, which it cannot be"


def enqueue_faults(space: Mapping[str, Range], enqueue: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return the faults of configurations to run first, as pairs of ``index.parameter`` and message."""
    faults = []
    for index, configuration in enumerate(enqueue):
        for name, value in configuration.items():
            if name not in space:
                faults.append((f"{index}.{name}", f"is not in the space; it has {', '.join(sorted(space))}"))
            elif not space[name].contains(value):
                faults.append((f"{index}.{name}", f"{value!r} is outside the space: {describe(space[name])}"))
            else:
                for parent, allowed in space[name].when.items():
                    if not any(_is_same(configuration.get(parent, allowed[0]), one) for one in allowed):
                        faults.append((f"{index}.{name}", f"has no value if {parent} is {configuration[parent]!r}"))
    return faults


def describe(range_: Range) -> str:
    """Return a range in words: ``1e-05 to 0.001, log`` or ``one of 8, 16``."""
    if isinstance(range_, Choice):
        return f"one of {', '.join(map(_shown, range_.choice))}"
    if isinstance(range_, Fixed):
        return f"always {_shown(range_.value)}"
    step = f", in steps of {range_.step}" if isinstance(range_, IntRange) and range_.step > 1 else ""
    return f"{range_.low:g} to {range_.high:g}{step}{', log' if range_.log else ''}"


def _shown(value: ChoiceValue) -> str:
    return " + ".join(value) if isinstance(value, tuple) else "null" if value is None else str(value)
