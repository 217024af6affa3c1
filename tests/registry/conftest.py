from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from judged import Judged

from sweeper.paths import Home
from sweeper.store import Database


@pytest.fixture
def judged(tmp_path: Path) -> Iterator[Judged]:
    home = Home(tmp_path / "home")
    with Database.open(home.database, create=True) as database:
        yield Judged(home, database, tmp_path)


@pytest.fixture
def twice(tmp_path: Path) -> Callable[[], Database]:
    """Return what opens the home's database once more, as another process does."""
    return lambda: Database.open(tmp_path / "home" / "sweeper.db", create=False)
