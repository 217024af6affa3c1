"""Presets: data files that name a range for each parameter, and where the range comes from."""

from __future__ import annotations

import difflib
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
"""The name that stands for: pick by technique, adapter and the number of steps the data gives."""

_FALLBACK = "guide"


class PresetParameter(Frozen):
    """A range and where it comes from."""

    range: Range
    source: str = Field(min_length=10)


class Rule(Frozen):
    """A value that is computed from the model."""

    rule: Literal["tinker"]


class KnownGood(Frozen):
    """A configuration that others have found to work, to try before searching."""

    values: dict[str, Rule | Scalar]
    source: str = Field(min_length=10)


class Purpose(Frozen):
    """What a preset is the recommended one for."""

    techniques: tuple[str, ...]
    adapters: tuple[str, ...]


class Preset(Frozen):
    """A named set of ranges.

    Attributes:
        name: Its name in study files.
        title: What it is, in a few words.
        parameters: Ranges by parameter name.
        known_good: Configurations to try first, the best first.
        recommended_for: What ``recommended`` picks it for.
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
    """Return the names a study file may use, the default first."""
    return (RECOMMENDED, *_presets())


def load(name: str) -> Preset:
    """Return the preset of a data file.

    Raises:
        UserError: If there is none of this name.
    """
    preset = _presets().get(name)
    if preset is None:
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"search.preset: there is no preset {name!r}; known are {', '.join(names())}{hint}")
    return preset


def recommend(technique: str, adapter: str) -> Preset:
    """Return the preset made for a technique and an adapter, by their kinds; the guide where none is."""
    for preset in _presets().values():
        purpose = preset.recommended_for
        if purpose is not None and technique in purpose.techniques and adapter in purpose.adapters:
            return preset
    return load(_FALLBACK)
