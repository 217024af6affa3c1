from __future__ import annotations

from pathlib import Path

import pytest
from optuna.testing.pytest_storages import StorageTestCase

from sweeper.search.storage import open_storage


class TestContract(StorageTestCase):
    @pytest.fixture
    def storage(self, tmp_path: Path):
        storage = open_storage(tmp_path / "x.db")
        yield storage
        storage.remove_session()
        storage.engine.dispose()
