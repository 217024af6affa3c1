"""A registered adapter version as everyone sees it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sweeper.registry.lineage import Lineage
from sweeper.store import Stage


@dataclass(frozen=True)
class AdapterVersion:
    """A registered adapter.

    Attributes:
        name: The adapter's name.
        version: Counts from 1 per name; never given twice, not even after a deletion.
        stage: Candidate, staging, production or archived.
        folder: Its files, as PEFT loads them; of full fine-tuning a model, as transformers does.
        sha256: SHA-256 of the weights.
        bytes: Size of all files.
        files: SHA-256 of every file by name.
        scores: {split: {metric: {score, low, high, diff_to_base, ...}}}.
        lineage: Where it came from.
        created_at: When it was registered (UTC).
        aliases: Further names of it, such as ``champion``.
        tags: Words that people gave it.
        note: What people say of it.
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
