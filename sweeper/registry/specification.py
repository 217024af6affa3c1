"""What a registered version was trained as: all that is needed to load it."""

from __future__ import annotations

from pydantic import ValidationError

from sweeper.config.trial import TrialSpec
from sweeper.errors import RegistryError
from sweeper.paths import Home
from sweeper.registry.version import AdapterVersion


def trial_spec(home: Home, version: AdapterVersion) -> TrialSpec:
    """Return the specification of the trial that made a version.

    Raises:
        RegistryError: If it, or the base model that it names, is gone.
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
    if not spec.model_folder.is_dir():
        raise RegistryError(f"{version} stands on the base model in {spec.model_folder}, which is gone")
    return spec
