from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from search_helpers import MIXED, Make

from sweeper.config.evaluation import EvaluationConfig
from sweeper.config.search import SearchConfig
from sweeper.config.space import Space
from sweeper.search.storages.open import open_storage
from sweeper.search.study import Search


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Create or open searches on a real SQLite file in a folder of its own."""
    storages = []

    def build(
        database: str = "sweeper.db",
        *,
        opened: bool = False,
        space: Space = MIXED,
        seed: int = 7,
        evaluation: EvaluationConfig | None = None,
        known_good: tuple[dict[str, Any], ...] = (),
        **config: Any,
    ) -> Search:
        storage = open_storage(tmp_path / database)
        storages.append(storage)
        known: dict[str, Any] = {
            "config": SearchConfig.model_validate({"n_trials": 12, **config}),
            "space": space,
            "evaluation": evaluation or EvaluationConfig(),
            "seed": seed,
        }
        if opened:
            return Search.open("study", storage, **known)
        return Search.create("study", storage, known_good=known_good, **known)

    yield build
    for storage in storages:
        storage.remove_session()
        storage.engine.dispose()
