"""Every registered version in a line: what pages offer where a version is picked."""

from __future__ import annotations

from dataclasses import dataclass

from sweeper_dashboard.data import home


@dataclass(frozen=True)
class Version:
    """A registered version.

    Attributes:
        name: The adapter's name.
        version: Its version.
        stage: Its stage as a word.
        study: The study that found it.
        trial: The trial that trained it.
        reference: ``NAME@VERSION``, as addresses and study files name it.
        label: What a list shows: plain text, stage included.
    """

    name: str
    version: int
    stage: str
    study: str
    trial: int
    reference: str
    label: str


def versions() -> list[Version]:
    """Return every version, those in production first, then the newest."""
    with home.database() as database:
        found = database.adapters.all()
    found = sorted(found, key=lambda of: (of.stage != "production", -of.created_at.timestamp()))
    return [
        Version(
            name=of.name,
            version=of.version,
            stage=of.stage.value,
            study=of.study,
            trial=of.number,
            reference=f"{of.name}@{of.version}",
            label=home.clean(f"{of.name} v{of.version} ({of.stage.value})"),
        )
        for of in found
    ]
