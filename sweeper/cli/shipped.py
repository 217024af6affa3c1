"""Folders of the packages that ship with sweeper: in a checkout, or in site-packages from a wheel."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from sweeper.errors import SweeperError

DASHBOARD = "sweeper_dashboard"
STUDIES = "sweeper_studies"


def shipped_folder(package: str) -> Path:
    """Return the folder of a package that ships with sweeper, without importing it.

    Raises:
        SweeperError: If it is not installed.
    """
    spec = find_spec(package)
    # An editable install adds an entry that is not a folder.
    places = () if spec is None else map(Path, spec.submodule_search_locations or ())
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise SweeperError(
            f"package {package} is missing, although it ships with sweeper; reinstall sweeper: "
            "`pip install --force-reinstall --no-deps` with the wheel, or with `-e .` in a checkout"
        )
    return found
