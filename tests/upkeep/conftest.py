"""A home with a study in it, as one that was run leaves it, without any training: real tables, real files."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kept_study import KeptStudy

from sweeper.paths import Home
from sweeper.search.storages.open import open_storage
from sweeper.store import Database


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with all tables and nothing in them: making them takes most of a test's time."""
    path = tmp_path_factory.mktemp("empty") / "sweeper.db"
    Database.open(path, create=True).close()
    open_storage(path).engine.dispose()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path


@pytest.fixture
def begun(tmp_path: Path, empty_database: Path) -> Iterator[Callable[..., KeptStudy]]:
    """Return what begins a study; parts of its configuration may be given."""
    from safetensors.numpy import save_file

    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llama"}')
    save_file({"weight": np.zeros(3, dtype=np.float32)}, model / "model.safetensors")
    Home.current().folder.mkdir()
    shutil.copyfile(empty_database, Home.current().database)
    opened: list[KeptStudy] = []

    def begin(name: str = "kept", **parts: Any) -> KeptStudy:
        opened.append(KeptStudy(name, base=model, **parts))
        return opened[-1]

    yield begin
    for each in opened:
        each.database.close()


@pytest.fixture
def old() -> Callable[[Path], None]:
    """Return what makes paths look untouched for a day."""

    def age(*paths: Path) -> None:
        at = time.time() - 86_400
        for path in paths:
            for each in (*path.rglob("*"), path):
                os.utime(each, (at, at), follow_symlinks=False)

    return age
