"""Search ranges: a float, an int, a choice or a fixed value, each possibly only under another choice."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from sweeper.config.base import Frozen
from sweeper.config.parameters import Scalar

ChoiceValue = Scalar | tuple[str, ...]
When = dict[str, tuple[ChoiceValue, ...]]


class _Range(Frozen):
    when: When = Field(default_factory=dict, description="Only where these parameters have one of these values.")

    @model_validator(mode="before")
    @classmethod
    def _single_values(cls, data: Any) -> Any:
        """``when: {lora_rank: 8}`` means ``when: {lora_rank: [8]}``."""
        if isinstance(data, dict) and isinstance(data.get("when"), dict):
            when = {k: v if isinstance(v, list | tuple) else [v] for k, v in data["when"].items()}
            return {**data, "when": when}
        return data


class _Interval(_Range):
    @model_validator(mode="after")
    def _ordered(self) -> _Interval:
        low, high = self.low, self.high  # type: ignore[attr-defined]
        if low > high:
            raise ValueError(f"low must not be above high; found low {low:g}, high {high:g}")
        if self.log and low <= 0:  # type: ignore[attr-defined]
            raise ValueError(f"a log range must begin above 0; found low {low:g}")
        return self


class FloatRange(_Interval):
    """A real number between ``low`` and ``high``, both included."""

    kind: Literal["float"] = "float"
    low: float
    high: float
    log: bool = False

    def contains(self, value: Any) -> bool:
        """Tell whether a trial may have this value."""
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def clip(self, value: Any) -> Any:
        """Return the nearest value of the range."""
        return min(max(float(value), self.low), self.high)

    def corners(self) -> tuple[Any, ...]:
        """Return the extreme values, for what can be known before training."""
        return (self.low, self.high)


class IntRange(_Interval):
    """A whole number between ``low`` and ``high``, both included, in steps of ``step``."""

    kind: Literal["int"] = "int"
    low: int
    high: int
    log: bool = False
    step: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _log_has_no_step(self) -> IntRange:
        if self.log and self.step != 1:
            raise ValueError("a log range has no step; leave step out, or list the values as a choice")
        return self

    def contains(self, value: Any) -> bool:
        """Tell whether a trial may have this value."""
        whole = isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
        return whole and self.low <= value <= self.high and (int(value) - self.low) % self.step == 0

    def clip(self, value: Any) -> Any:
        """Return the nearest value of the range."""
        bounded = min(max(round(value), self.low), self.high)
        return self.low + round((bounded - self.low) / self.step) * self.step

    def corners(self) -> tuple[Any, ...]:
        """Return the extreme values, for what can be known before training."""
        return (self.low, self.high)


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
        """Tell whether a trial may have this value."""
        return value in self.choice

    def clip(self, value: Any) -> Any:
        """Return the nearest value of the choice; the first where nearness has no meaning."""
        if value in self.choice:
            return value
        numbers = [v for v in self.choice if isinstance(v, int | float) and not isinstance(v, bool)]
        if isinstance(value, int | float) and numbers and len(numbers) == len(self.choice):
            return min(numbers, key=lambda v: abs(_log_or_plain(v) - _log_or_plain(value)))
        return self.choice[0]

    def corners(self) -> tuple[Any, ...]:
        """Return the extreme values, for what can be known before training."""
        numbers = [v for v in self.choice if isinstance(v, int | float) and not isinstance(v, bool)]
        return (min(numbers), max(numbers)) if len(numbers) == len(self.choice) else self.choice


class Fixed(_Range):
    """Not searched: every trial has this value."""

    kind: Literal["fixed"] = "fixed"
    value: ChoiceValue | None

    def contains(self, value: Any) -> bool:
        """Tell whether a trial may have this value."""
        return bool(value == self.value)

    def clip(self, value: Any) -> Any:
        """Return the only value there is."""
        return self.value

    def corners(self) -> tuple[Any, ...]:
        """Return the extreme values, for what can be known before training."""
        return (self.value,)


def _log_or_plain(value: float) -> float:
    return math.log(value) if value > 0 else value


def _shorthand(value: Any) -> Any:
    """``0.1`` is fixed, ``[8, 16]`` is a choice, and low/high is an int range where both are whole numbers."""
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
    whole = all(isinstance(value.get(end), int) and not isinstance(value.get(end), bool) for end in ("low", "high"))
    return {"kind": "int" if whole else "float", **value}


def _kind(value: Any) -> str | None:
    return value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)


Range = Annotated[
    Annotated[FloatRange, Tag("float")]
    | Annotated[IntRange, Tag("int")]
    | Annotated[Choice, Tag("choice")]
    | Annotated[Fixed, Tag("fixed")],
    Discriminator(_kind),
    BeforeValidator(_shorthand),
]
"""One parameter's range as a study file or a preset writes it."""

Space = dict[str, Range]
"""Ranges by parameter name."""
