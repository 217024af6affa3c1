from __future__ import annotations

from collections.abc import Iterator

import pytest

from .campaign import Campaign
from .forks import Forks


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    with Forks() as server:
        yield server


@pytest.fixture(scope="session")
def campaign(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return Campaign(tmp_path_factory.mktemp("faults"), 7, forks)
