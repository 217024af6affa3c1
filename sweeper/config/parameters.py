"""The hyperparameters that sweeper knows by name: their types, bounds and defaults, and the steps they amount to.

Any other field of the technique's TRL config can be searched by its own name (see ``training.techniques``).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from sweeper.config.base import Frozen

Scalar = bool | int | float | str
ParameterValue = Scalar | tuple[str, ...] | None
ParameterType = Literal["float", "int", "text", "alpha", "modules"]

ALPHA = re.compile(r"^(\d+(?:\.\d+)?)?r$")
"""``r`` or ``2r`` or ``0.5r``: a multiple of the rank."""

_MOST_RANKS = 65536.0

SCHEDULERS = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "cosine_with_min_lr",
    "warmup_stable_decay",
)


@dataclass(frozen=True)
class Parameter:
    """A hyperparameter.

    Attributes:
        type: ``alpha`` is a number or a multiple of the rank; ``modules`` is ``all-linear`` or a list of names.
        default: Used if the space leaves the parameter out.
        low_open: Whether ``low`` itself is refused.
        allowed: The allowed words of a text parameter.
    """

    name: str
    type: ParameterType
    default: ParameterValue
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    allowed: tuple[str, ...] = ()

    def fault(self, value: object) -> str | None:
        """Return why ``value`` is not allowed, or None."""
        if self.type == "text":
            if not isinstance(value, str) or (self.allowed and value not in self.allowed):
                return f"must be one of {', '.join(self.allowed)}; found {value!r}"
            return None
        if self.type == "modules":
            words = (value,) if isinstance(value, str) else value
            if not isinstance(words, tuple | list) or not words or not all(isinstance(w, str) and w for w in words):
                return f"must be all-linear or a list of module names; found {value!r}"
            return None
        if self.type == "alpha" and isinstance(value, str):
            factor = ALPHA.match(value)
            if factor is None or (factor[1] is not None and not 0 < float(factor[1]) <= _MOST_RANKS):
                return f"must be a positive number or a multiple of the rank such as r or 2r; found {value!r}"
            return None
        return self._number_fault(value)

    def _number_fault(self, value: object) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"must be {'an integer' if self.type == 'int' else 'a number'}; found {value!r}"
        if self.type == "int" and value != int(value):
            return f"must be an integer; found {value!r}"
        below = self.low is not None and (value < self.low or (self.low_open and value == self.low))
        above = self.high is not None and value > self.high
        if below or above:
            lower = f"{'above' if self.low_open else 'at least'} {self.low:g}" if self.low is not None else ""
            upper = f"at most {self.high:g}" if self.high is not None else ""
            return f"must be {' and '.join(filter(None, (lower, upper)))}; found {value!r}"
        return None


def table(*parameters: Parameter) -> dict[str, Parameter]:
    """Return parameters by name."""
    return {parameter.name: parameter for parameter in parameters}


PARAMETERS = table(
    Parameter("learning_rate", "float", 2e-4, low=0, high=10, low_open=True),
    Parameter("batch_size", "int", 16, low=1, high=65536),
    Parameter("epochs", "float", 1, low=0, high=1000, low_open=True),
    Parameter("warmup_steps", "int", None, low=0),
    Parameter("warmup_ratio", "float", 0.05, low=0, high=0.9),
    Parameter("lr_scheduler", "text", "linear", allowed=SCHEDULERS),
    Parameter("weight_decay", "float", 0.0, low=0, high=10),
    Parameter("max_grad_norm", "float", 1.0, low=0, low_open=True),
    Parameter("lora_rank", "int", 16, low=1, high=65536),
    Parameter("lora_alpha", "alpha", "2r", low=0, low_open=True),
    Parameter("lora_dropout", "float", 0.0, low=0, high=0.95),
    Parameter("target_modules", "modules", "all-linear"),
)
"""Every hyperparameter that sweeper itself defines, by name."""

LORA_PARAMETERS = ("lora_rank", "lora_alpha", "lora_dropout", "target_modules")
"""Those that only LoRA and its relatives have."""

EXCLUSIVE = (("warmup_steps", "warmup_ratio"),)
"""Pairs of which a space may name only one: both set the same thing, in different units."""


class Hyperparameters(Frozen):
    """A trial's resolved hyperparameters; ``trl`` holds further fields of the technique's TRL config by name."""

    learning_rate: float
    batch_size: int
    epochs: float
    warmup_steps: int | None = None
    warmup_ratio: float | None = None
    lr_scheduler: str = "linear"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    lora_rank: int = 16
    lora_alpha: float = 32.0
    lora_dropout: float = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"
    trl: dict[str, Any] = Field(default_factory=dict)


def alpha_value(alpha: float | str, rank: int) -> float:
    """Return LoRA's alpha as a number: ``2r`` with rank 8 is 16.

    Raises:
        ValueError: If ``alpha`` is neither a number nor a multiple of the rank.
    """
    if not isinstance(alpha, str):
        return float(alpha)
    factor = ALPHA.match(alpha)
    if factor is None:
        raise ValueError(f"lora_alpha must be a number or a multiple of the rank such as 2r; found {alpha!r}")
    return float(factor[1] or 1) * rank


def steps(train_rows: int, batch_size: int, epochs: float) -> int:
    """Return the number of optimizer steps, as the Hugging Face trainer counts them.

    The last batch of an epoch may be smaller, so an epoch has ``ceil(rows / batch)`` steps; a part of an epoch is
    rounded up to a whole step.

    Raises:
        ValueError: If there are no rows, or a size is not above 0.
    """
    if train_rows < 1 or batch_size < 1 or epochs <= 0:
        raise ValueError(f"rows, batch size and epochs must be above 0; found {train_rows}, {batch_size}, {epochs}")
    return math.ceil(epochs * math.ceil(train_rows / batch_size))


def step_count(count: int) -> str:
    """Return a number of optimizer steps for people, for example ``1 optimizer step``."""
    return f"{count:,} optimizer step{'s' * (count != 1)}"


def warmup(total_steps: int, warmup_steps: int | None, warmup_ratio: float | None) -> int:
    """Return the number of warmup steps; a ratio is rounded up. It may exceed ``total_steps``: the caller warns."""
    if warmup_steps is not None:
        return warmup_steps
    return math.ceil(total_steps * (warmup_ratio or 0.0))
