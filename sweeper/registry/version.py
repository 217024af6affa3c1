"""A registered adapter version, and the specification of the trial that trained it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sweeper.config.trial import TrialSpec
from sweeper.errors import RegistryError
from sweeper.models.facts import fingerprint
from sweeper.paths import Home
from sweeper.registry.lineage import Lineage
from sweeper.store import Stage


@dataclass(frozen=True)
class AdapterVersion:
    """A registered adapter; see ``store.AdapterRecord``.

    Attributes:
        version: Counts from 1 per name; never given twice, not even after a deletion.
        folder: Its files, as PEFT loads them; for full fine-tuning a model, as transformers loads it.
        scores: {split: {metric: {score, low, high, diff_to_base, ...}}}.
        created_at: When it was registered (UTC).
        aliases: Other names of it, such as ``champion``.
    """

    name: str
    version: int
    stage: Stage
    folder: Path
    sha256: str
    bytes: int
    files: dict[str, str]
    scores: dict[str, Any]
    lineage: Lineage
    created_at: datetime
    aliases: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    note: str = ""

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"


def trial_spec(home: Home, version: AdapterVersion) -> TrialSpec:
    """Return the specification of the trial that made a version.

    Raises:
        RegistryError: If it is gone or damaged, or its base model is gone or has changed.
    """
    path = home.study(version.lineage.study).trial(version.lineage.trial).spec
    if not path.is_file():
        raise RegistryError(f"{path} is gone, so {version} cannot be loaded; restore it from a backup")
    try:
        spec = TrialSpec.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise RegistryError(
            f"{path} is damaged, or of another version of sweeper; {version} cannot be loaded"
        ) from error
    require_base(version, spec.model_folder)
    return spec


def require_base(version: AdapterVersion, folder: Path) -> None:
    """Refuse a folder that does not hold the base model that a version was trained on.

    Raises:
        RegistryError: If it is gone or has another hash.
        ModelError: If it is no longer a usable model.
    """
    if not folder.is_dir():
        raise RegistryError(f"{version} needs the base model in {folder}, which is gone")
    found, wanted = fingerprint(folder), version.lineage.base_model_fingerprint
    if found != wanted:
        raise RegistryError(
            f"{version} was trained on {version.lineage.base_model} ({wanted[:12]}), and {folder} now holds "
            f"another base model ({found[:12]}): put the original back, or train again"
        )
