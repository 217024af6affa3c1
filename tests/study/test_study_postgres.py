"""Studies whose database is on a PostgreSQL server: moved there midway, or begun there."""

from __future__ import annotations

import pytest
from postgres_server import Postgres
from sqlalchemy import MetaData, select
from test_study_run import Stopping, finished, state

from sweeper.database_url import PostgresUrl
from sweeper.errors import DatabaseError, StudyInterrupted
from sweeper.paths import Home
from sweeper.store import Database, StudyState
from sweeper.store.connection import engine_on
from sweeper.study.run import resume_study, run_study
from sweeper.upkeep.migrate_storage import migrate


def test_a_study_begun_on_sqlite_and_moved_midway_ends_as_one_that_never_moved(
    study_file, server: PostgresUrl, tmp_path
):
    search = {"n_trials": 3, "pruner": {"kind": "asha"}}
    file = study_file(search=search, executor={"kind": "inline"})
    through, moved = Home(tmp_path / "through"), Home(tmp_path / "moved")
    result = run_study(file, home=through)
    listener = Stopping(number=1, step=1)
    with pytest.raises(StudyInterrupted):
        run_study(file, home=moved, listener=listener, stop=listener.stop)
    there = study_file(search=search, executor={"kind": "inline"}, storage=server.written)
    with pytest.raises(DatabaseError, match="sweeper migrate-storage"):
        run_study(there, home=moved)
    migrate(moved, server)
    assert state(moved) is StudyState.INTERRUPTED and moved.database == server
    resumed = run_study(there, home=moved)  # the same file with the line that says where it is now
    assert finished(moved) == finished(through)
    assert state(moved) is StudyState.FINISHED
    assert list(resumed.comparison.to_base.values()) == list(result.comparison.to_base.values())
    with Database.open(moved.database, create=False) as database:
        assert len(database.evaluations.all("tiny")) >= 2


def test_a_study_begun_on_a_server_keeps_its_password_nowhere_but_in_the_private_file(
    study_file, server: PostgresUrl, postgres: Postgres
):
    home = Home.current()
    secret = "s3cretpassw0rd"
    url = server.written.replace(f"{server.url.username}@", f"{server.url.username}:{secret}@")
    file = study_file(search={"n_trials": 2}, storage=url)
    listener = Stopping(number=1, step=1)
    with pytest.raises(StudyInterrupted):
        run_study(file, listener=listener, stop=listener.stop)
    assert home.database.url.password == secret
    resume_study("tiny", listener=Stopping())
    assert state(home) is StudyState.FINISHED and not home.database_file.exists()
    assert secret in home.binding.read_text()
    files = [path for path in home.folder.rglob("*") if path.is_file() and path != home.binding]
    assert len(files) > 10
    assert [path for path in files if secret.encode() in path.read_bytes()] == []
    stored = everything(server)
    assert "tiny" in stored and secret not in stored
    with Database.open(home.database, create=False) as database:
        assert database.studies.get("tiny").config["storage"]["url"] == str(PostgresUrl(url))


def everything(server: PostgresUrl) -> str:
    """Every value of every table, ours and Optuna's."""
    engine, tables = engine_on(server, busy_timeout_s=5), MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        found = [repr(connection.execute(select(table)).all()) for table in tables.sorted_tables]
    engine.dispose()
    return "\n".join(found)
