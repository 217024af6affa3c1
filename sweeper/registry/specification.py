"""What a registered version was trained as: all that is needed to load it."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from sweeper.config.trial import TrialSpec
from sweeper.errors import RegistryError
from sweeper.models.facts import fingerprint
from sweeper.paths import Home
from sweeper.registry.version import AdapterVersion


def trial_spec(home: Home, version: AdapterVersion) -> TrialSpec:
    """Return the specification of the trial that made a version.

    Raises:
        RegistryError: If it, or the base model that it names, is gone; or if that is another one now.
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
    """Hold that a folder has the base model that a version was trained on.

    Raises:
        RegistryError: If it is gone, or its hash is another.
        ModelError: If what is there is no usable model any more.
    """
    if not folder.is_dir():
        raise RegistryError(f"{version} stands on the base model in {folder}, which is gone")
    found, wanted = fingerprint(folder), version.lineage.base_model_fingerprint
    if found != wanted:
        raise RegistryError(
            f"{version} was trained on {version.lineage.base_model} ({wanted[:12]}), and {folder} holds another base "
            f"model now ({found[:12]}): put the former one back, or train again"
        )
