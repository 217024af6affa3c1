from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from sqlalchemy import create_engine, text
from test_store_database import create_study, tables

from sweeper.errors import DatabaseError
from sweeper.store import Database
from sweeper.store.connection import tune_sqlite
from sweeper.store.schema import OPTUNA_TABLES
from sweeper.store.tables import Base

optuna.logging.set_verbosity(optuna.logging.WARNING)


def search(path: Path, name: str, n_trials: int = 3) -> list[float]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    try:
        study = optuna.create_study(study_name=name, storage=storage, load_if_exists=True)
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=n_trials)
        return [trial.value for trial in optuna.load_study(study_name=name, storage=storage).trials]
    finally:
        storage.engine.dispose()


def reload(path: Path, name: str) -> list[float]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    try:
        return [trial.value for trial in optuna.load_study(study_name=name, storage=storage).trials]
    finally:
        storage.engine.dispose()


@pytest.mark.parametrize("create", [True, False])
def test_optunas_tables_first(tmp_path: Path, create: bool) -> None:
    path = tmp_path / "x.db"
    values = search(path, "itn")
    optunas = tables(path)
    assert optunas >= OPTUNA_TABLES
    with Database.open(path, create=create) as database:
        create_study(database, "itn")
        assert reload(path, "itn") == values
    assert tables(path) > optunas | set(Base.metadata.tables)
    assert len(search(path, "itn")) == 6


def test_ours_first(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with Database.open(path, create=True) as database:
        create_study(database, "itn")
        values = search(path, "itn")
        assert [study.name for study in database.studies.all()] == ["itn"]
    with Database.open(path, create=False) as database:
        assert [study.name for study in database.studies.all()] == ["itn"]
    assert reload(path, "itn") == values


def test_optunas_database_in_use_says_so_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    values = search(path, "itn")
    before = tables(path)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM studies").fetchone()
        with pytest.raises(DatabaseError, match="is locked by another process"):
            Database.open(path, create=True, busy_timeout_s=0.1)
    assert tables(path) == before
    assert reload(path, "itn") == values


def test_optunas_revision_is_never_touched(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    search(path, "itn")
    engine = create_engine(f"sqlite:///{path}")
    tune_sqlite(engine)
    query = text("SELECT version_num FROM alembic_version")
    with engine.connect() as connection:
        before = connection.scalar(query)
    Database.open(path, create=True).close()
    with engine.connect() as connection:
        assert connection.scalar(query) == before
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1
    engine.dispose()
