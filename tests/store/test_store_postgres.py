"""What is PostgreSQL's own: opening at once, schemas, lost connections, passwords, and checks that hold."""

from __future__ import annotations

import multiprocessing
import sys
import threading
import time

import optuna
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from postgres_server import Postgres
from sqlalchemy import inspect
from test_store_database import create_study
from test_store_records import result

from sweeper.database_url import Address, PostgresUrl
from sweeper.errors import DatabaseError, StudyStateError
from sweeper.search.storages.open import open_storage
from sweeper.store import Database, TrialKind
from sweeper.store.connection import engine_on
from sweeper.store.migrations import VERSION_TABLE
from sweeper.store.tables import Base
from sweeper.training.trial_output import TrialResult

FORK = multiprocessing.get_context("fork")
optuna.logging.set_verbosity(optuna.logging.WARNING)


def _open(address: Address, barrier, name: str, said) -> None:
    barrier.wait()
    try:
        with Database.open(address, create=True) as database:
            open_storage(address)
            create_study(database, name)
        said.put("opened")
    except Exception as error:
        said.put(repr(error))


def test_many_processes_open_a_new_database_at_once(address: Address):
    barrier, said = FORK.Barrier(8), FORK.Queue()
    processes = [FORK.Process(target=_open, args=(address, barrier, f"study-{index}", said)) for index in range(8)]
    for process in processes:
        process.start()
    assert [said.get(timeout=120) for _ in processes] == ["opened"] * 8
    for process in processes:
        process.join()
    with Database.open(address, create=False) as database:
        assert len(database.studies.all()) == 8


def test_the_migrations_make_what_the_tables_say(server: PostgresUrl):
    Database.open(server, create=True).close()
    engine = engine_on(server, busy_timeout_s=1)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_an_empty_database_and_another_programs_are_told_apart(server: PostgresUrl, postgres: Postgres):
    assert not Database.exists(server)
    with pytest.raises(DatabaseError, match="is empty: run a study first"):
        Database.open(server, create=False)
    postgres.execute("CREATE TABLE photos (id int)", str(server.url.database))
    for create in (True, False):
        with pytest.raises(DatabaseError, match=r"belongs to another program \(tables photos\): give another database"):
            Database.open(server, create=create)
    gone = PostgresUrl(server.written.replace(str(server.url.database), "nowhere"))
    with pytest.raises(DatabaseError, match=r"does not exist .*createdb"):
        Database.open(gone, create=True)
    with pytest.raises(DatabaseError, match=r"does not exist .*createdb"):
        open_storage(gone)


def test_a_newer_schema_is_refused(server: PostgresUrl, postgres: Postgres):
    Database.open(server, create=True).close()
    postgres.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'", str(server.url.database))
    for read_only in (True, False):
        with pytest.raises(DatabaseError, match=r"\(schema 9999\).*upgrade sweeper"):
            Database.open(server, create=False, read_only=read_only)


@pytest.mark.parametrize("parameter", ["options=-csearch_path%3D", "search_path="])
def test_schemas_of_one_database_are_databases_of_their_own(server: PostgresUrl, postgres: Postgres, parameter: str):
    one, two = (PostgresUrl(f"{server.written}&{parameter}{schema}") for schema in ("one", "two"))
    assert one.identity != two.identity
    with pytest.raises(DatabaseError, match=r"has no such schema .*CREATE SCHEMA"):
        Database.open(one, create=True)
    for schema in ("one", "two"):
        postgres.execute(f"CREATE SCHEMA {schema}", str(server.url.database))
    for each in (one, two):
        with Database.open(each, create=True) as database:
            create_study(database, "itn")
            optuna.create_study(study_name="itn", storage=open_storage(each))
    with Database.open(one, create=False) as first, Database.open(two, create=False) as second:
        first.events.add("itn", "note", "one")
        with first.study_lock("itn"), second.study_lock("itn"):
            assert second.events.all("itn") == ()
    engine = engine_on(server, busy_timeout_s=1)
    assert inspect(engine).get_table_names() == []
    engine.dispose()


def test_looking_changes_nothing(server: PostgresUrl):
    with Database.open(server, create=True) as database:
        create_study(database, "itn")
    with Database.open(server, create=False, read_only=True) as database:
        assert [study.name for study in database.studies.all()] == ["itn"]
        with pytest.raises(DatabaseError, match="cannot be written"):
            create_study(database, "other")


def test_lost_connections_are_replaced_and_a_server_that_is_gone_is_named(postgres: Postgres, monkeypatch):
    with postgres.database(empty=False) as server, Database.open(server, create=False) as database:
        create_study(database, "itn")
        storage = open_storage(server)
        study = optuna.create_study(study_name="itn", storage=storage)
        kill = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{server.url.database}'"
        assert len(postgres.execute(kill)) >= 2
        database.events.add("itn", "note", "after the connections were lost")
        assert study.ask().number == 0
        postgres.stop()
        try:
            with pytest.raises(DatabaseError, match=r"cannot be reached or was lost.*check the server"):
                Database.open(server, create=False)
        finally:
            postgres.start()
        database.events.add("itn", "note", "after the server was started again")
        assert study.ask().number == 1
        assert next(event.message for event in database.events.all("itn")) == "after the connections were lost"


def test_a_password_of_any_characters_works_and_a_wrong_one_is_not_shown(postgres: Postgres, server: PostgresUrl):
    password = "p{0}t%d@:/?é \\"
    encoded = "p%7B0%7Dt%25d%40%3A%2F%3F%C3%A9%20%5C"
    rules = postgres.folder / "data" / "pg_hba.conf"
    before = rules.read_text()
    name = str(server.url.database)
    postgres.execute(f"CREATE ROLE ada LOGIN SUPERUSER PASSWORD '{password}'")
    rules.write_text("local all ada scram-sha-256\n" + before)
    try:
        postgres.execute("SELECT pg_reload_conf()")
        right = PostgresUrl(server.written.replace("postgres@", f"ada:{encoded}@"))
        assert right != server
        storage = open_storage(right)
        optuna.create_study(study_name="itn", storage=storage)
        assert "p{0}" not in repr(vars(storage)) and "%7B0" not in repr(vars(storage))
        with Database.open(right, create=True) as database:
            create_study(database, "itn")
            assert database.studies.find("itn") is not None
        wrong = PostgresUrl(right.written.replace(encoded, "wr0ngpassword"))
        for attempt in (lambda: Database.open(wrong, create=True), lambda: open_storage(wrong)):
            with pytest.raises(DatabaseError, match=r"ada:\*\*\*@.*(refuses|cannot be reached)") as caught:
                attempt()
            assert "wr0ng" not in str(caught.value)
    finally:
        rules.write_text(before)
        postgres.execute("SELECT pg_reload_conf()")
        postgres.execute("DROP OWNED BY ada", name)
        postgres.execute("DROP ROLE ada")


def test_without_psycopg_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    server = PostgresUrl("postgresql+psycopg://ada@127.0.0.1/sweeps")
    for attempt in (lambda: Database.open(server, create=True), lambda: open_storage(server)):
        with pytest.raises(DatabaseError, match=r"pip install 'sweeper\[postgres\]'"):
            attempt()


def test_a_trial_ends_once_however_many_end_it(database: Database, spec):
    create_study(database, "itn")
    for number in range(5):
        database.trials.start(spec(number), TrialKind.SAMPLED)
        barrier, outcomes = threading.Barrier(4), []

        def end(ended: TrialResult, barrier: threading.Barrier = barrier, outcomes: list[str] = outcomes) -> None:
            barrier.wait()
            try:
                database.trials.finish("itn", ended)
                outcomes.append("stored")
            except StudyStateError:
                outcomes.append("refused")

        ends = [result(number, finished_at=f"2026-09-01T10:00:0{second}+00:00") for second in range(4)]
        threads = [threading.Thread(target=end, args=(ended,)) for ended in ends]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["refused"] * 3 + ["stored"]


def test_writers_of_two_studies_do_not_wait_for_each_other_and_of_one_they_do(server: PostgresUrl):
    with Database.open(server, create=True, busy_timeout_s=0.3) as database:
        for name in ("one", "two"):
            create_study(database, name)
        with database._transactions.writing("one"):
            begun = time.monotonic()
            database.events.add("two", "note", "goes on")
            assert time.monotonic() - begun < 5
            with pytest.raises(DatabaseError, match="is locked by another process"):
                database.events.add("one", "note", "waits")
            with pytest.raises(DatabaseError, match="is locked by another process"):
                create_study(database, "three")


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b", "x" * 101])
def test_names_that_cannot_be_stored_are_refused_by_both(database: Database, spec, name: str):
    with pytest.raises(DatabaseError, match="stored"):
        create_study(database, name)
    assert database.studies.find(name) is None
    with pytest.raises(StudyStateError, match="no study"):
        database.events.add(name, "note", "text")
    create_study(database, "itn")
    database.trials.start(spec(0), TrialKind.SAMPLED)
    database.events.add("itn", "note", name)  # free text is mended instead
    with pytest.raises(DatabaseError):
        database.metrics.add("itn", [(0, 1, {name: 1.0})])
