"""Registered adapter versions."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
from sweeper_dashboard.data import frames, home

from sweeper.paths import Home
from sweeper.registry import AdapterVersion, Registry

_MIB = 1024**2


@dataclass(frozen=True)
class Adapter:
    """One registered version: a row of the list, where it came from, and its scores."""

    row: dict[str, Any]
    lineage: pd.DataFrame
    scores: pd.DataFrame


def adapters() -> list[Adapter]:
    """Return every registered adapter version, the newest first."""
    with home.database() as database:
        found = Registry(Home.current(), database).all()
    return [_adapter(version) for version in sorted(found, key=lambda version: version.created_at, reverse=True)]


def _adapter(version: AdapterVersion) -> Adapter:
    lineage = asdict(version.lineage)
    tried = lineage.pop("hyperparameters")
    facts = lineage | {f"hyperparameters.{name}": value for name, value in tried.items()}
    facts |= {f"sha256 of {name}": value for name, value in version.files.items()}
    row = {
        "adapter": version.name,
        "version": version.version,
        "stage": version.stage.value,
        "study": version.lineage.study,
        "trial": version.lineage.trial,
        "base model": version.lineage.base_model,
        "MiB": version.bytes / _MIB,
        "registered (UTC)": version.created_at,
    }
    scores = [{"split": split} | values for split, metrics in version.scores.items() for values in metrics.values()]
    told = [{"what": name, "value": str(frames.cell(value))} for name, value in facts.items() if value is not None]
    return Adapter(
        row={name: frames.cell(value) for name, value in row.items()},
        lineage=frames.frame(told, ["what", "value"]),
        scores=frames.frame(scores, ["split", "metric", "score", "low", "high"]),
    )
