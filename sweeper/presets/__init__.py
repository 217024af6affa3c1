"""Recommended search ranges as data, each with its source, and how they become the space of a study."""

from sweeper.presets.choices import ModelSize, resolve_choices, search_of
from sweeper.presets.presets import RECOMMENDED, KnownGood, Preset, load, names
from sweeper.presets.resolution import ResolvedSpace, resolve_space

__all__ = [
    "RECOMMENDED",
    "KnownGood",
    "ModelSize",
    "Preset",
    "ResolvedSpace",
    "load",
    "names",
    "resolve_choices",
    "resolve_space",
    "search_of",
]
