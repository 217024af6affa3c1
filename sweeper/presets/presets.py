"""Presets: data files with a range for each parameter, and its source."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Literal

import yaml
from pydantic import Field

from sweeper.config.base import Frozen
from sweeper.config.parameters import Scalar
from sweeper.config.space import Range
from sweeper.errors import UserError

RECOMMENDED = "recommended"
"""The preset picked by technique and adapter, fitted to the number of steps that the data give."""

_FALLBACK = "guide"


class PresetParameter(Frozen):
    """A range with its source."""

    range: Range
    source: str = Field(min_length=10)


class Rule(Frozen):
    """A value computed from the model."""

    rule: Literal["tinker"]


class KnownGood(Frozen):
    """A published configuration to try before searching."""

    values: dict[str, Rule | Scalar]
    source: str = Field(min_length=10)


class Purpose(Frozen):
    """The techniques and adapters that a preset is recommended for."""

    techniques: tuple[str, ...]
    adapters: tuple[str, ...]


class Preset(Frozen):
    """A named set of ranges.

    Attributes:
        title: A short description.
        known_good: Configurations to try first, the best first.
        recommended_for: The purpose for which ``recommended`` picks it.
    """

    name: str
    title: str
    parameters: dict[str, PresetParameter]
    known_good: tuple[KnownGood, ...] = Field(default=(), max_length=3)
    recommended_for: Purpose | None = None


@cache
def _presets() -> dict[str, Preset]:
    files = [file for file in resources.files("sweeper.presets").iterdir() if file.name.endswith(".yaml")]
    loaded = ((file.name.removesuffix(".yaml"), yaml.safe_load(file.read_text(encoding="utf-8"))) for file in files)
    return {name: Preset(name=name, **fields) for name, fields in sorted(loaded)}


def names() -> tuple[str, ...]:
    """Return the names that a study file may use, the default first."""
    return (RECOMMENDED, *_presets())


def load(name: str) -> Preset:
    """Return the preset of a data file; UserError if there is none of this name."""
    preset = _presets().get(name)
    if preset is None:
        raise UserError(f"search.preset: there is no preset {name!r}; known are {', '.join(names())}")
    return preset


def recommend(technique: str, adapter: str) -> Preset:
    """Return the preset for a technique and an adapter, by their kinds; by default the guide."""
    for preset in _presets().values():
        purpose = preset.recommended_for
        if purpose is not None and technique in purpose.techniques and adapter in purpose.adapters:
            return preset
    return load(_FALLBACK)
