from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event

from sweeper import __version__
from sweeper.errors import DatabaseError
from sweeper.store import Database
from sweeper.store.connection import sqlite_engine
from sweeper.store.migrations import HEAD, VERSION_TABLE
from sweeper.store.migrations.runner import _config, known_revisions
from sweeper.store.tables import PREFIX, Base

STUDY = textwrap.dedent(
    """
    from pathlib import Path
    import os, sys, time
    from sweeper.store import Database

    def create(database, name):
        database.studies.create(
            name, file_name="f", file_text="t", config={}, space={}, seed=0, packages={}, data_sha256={},
            base_model="m", base_model_fingerprint="f",
        )
    """
)


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", STUDY + textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )


def tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def integrity(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


def test_a_new_file_has_our_tables_only_and_is_in_wal_mode(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder with %, ? and #" / "sweeper.db"
    Database.open(path, create=True).close()
    assert tables(path) == set(Base.metadata.tables) | {VERSION_TABLE}
    assert all(name.startswith(PREFIX) for name in tables(path))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_every_connection_has_the_settings(tmp_path: Path) -> None:
    Database.open(tmp_path / "x.db", create=True).close()
    engine = sqlite_engine(tmp_path / "x.db", busy_timeout_s=30)
    with engine.connect() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("synchronous", "busy_timeout", "foreign_keys")
        }
    engine.dispose()
    assert found == {"synchronous": 1, "busy_timeout": 30_000, "foreign_keys": 1}


def test_the_migrations_make_what_the_tables_say(tmp_path: Path) -> None:
    Database.open(tmp_path / "x.db", create=True).close()
    engine = sqlite_engine(tmp_path / "x.db", busy_timeout_s=1)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_the_head_is_the_newest_revision() -> None:
    assert ScriptDirectory.from_config(_config()).get_heads() == [HEAD]
    assert HEAD in known_revisions()


def test_a_database_of_the_first_schema_keeps_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.touch()
    engine = sqlite_engine(path, busy_timeout_s=1, foreign_keys=False)
    config = _config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    now = "2026-01-01 00:00:00"
    execute(
        path,
        "INSERT INTO sweeper_studies VALUES (1, 'old', 'finished', "
        f"'{now}', '{now}', '{now}', 'a.yaml', '', '{{}}', '{{}}', 1, '0.1', '{{}}', '{{}}', 'base', 'print')",
        "INSERT INTO sweeper_trials (id, study_id, number, kind, seed, parameters_json, metrics_json, steps, "
        "total_steps, epochs_trained, device, started_at, train_seconds, tokens) "
        f"VALUES (1, 1, 0, 'sampled', 1, '{{}}', '{{}}', 1, 1, 1, 'cpu', '{now}', 1, 1)",
        "INSERT INTO sweeper_evaluations (study_id, number, split, metric, score) VALUES (1, NULL, 'test', 'm', 0.5)",
    )
    with Database.open(path, create=False) as database:
        (evaluation,) = database.evaluations.all("old")
        assert (evaluation.number, evaluation.base, evaluation.subject) == (None, "", "base model")
        trial = database.trials.get("old", 0)
        assert (trial.base_model, trial.base_model_fingerprint, trial.total_parameters) == (None, None, None)
        assert database.decisions.of("old", 0) is None, "nothing is known of what was decided then"


def test_opening_again_keeps_everything(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    Database.open(path, create=True).close()
    before = path.read_bytes()
    Database.open(path, create=True).close()
    Database.open(path, create=False).close()
    assert path.read_bytes() == before


def test_a_missing_file_is_not_made_unless_asked(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match=r"no database at .*: run a study first"):
        Database.open(tmp_path / "gone" / "x.db", create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_a_fifo_and_a_path_through_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_text("x")
    with pytest.raises(DatabaseError, match="is a folder"):
        Database.open(tmp_path, create=True)
    with pytest.raises(DatabaseError, match="not a regular file"):
        Database.open(tmp_path / "fifo", create=True)
    with pytest.raises(DatabaseError, match="cannot be used"):
        Database.open(tmp_path / "file" / "x.db", create=True)


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("content", [b"name: itn\n", b"SQLite format 2", b"\0" * 4096])
def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path: Path, content: bytes, create: bool) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    with pytest.raises(DatabaseError, match="is not an SQLite database"):
        Database.open(path, create=create)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("create", [True, False])
def test_another_programs_database_is_left_as_it_is(tmp_path: Path, create: bool) -> None:
    path = tmp_path / "photos.db"
    execute(path, "CREATE TABLE photos (id INTEGER)", "CREATE TABLE alembic_version (version_num TEXT)")
    before = path.read_bytes()
    with pytest.raises(DatabaseError, match=r"belongs to another program \(tables alembic_version, photos\)"):
        Database.open(path, create=create)
    assert path.read_bytes() == before


def test_an_empty_file_is_a_new_database_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.touch()
    with pytest.raises(DatabaseError, match="is empty"):
        Database.open(path, create=False)
    assert path.read_bytes() == b""
    Database.open(path, create=True).close()
    assert f"{PREFIX}studies" in tables(path)


@pytest.mark.parametrize("create", [True, False])
def test_a_newer_schema_names_who_wrote_it(tmp_path: Path, create: bool) -> None:
    path = tmp_path / "x.db"
    Database.open(path, create=True).close()
    newer = f"UPDATE {VERSION_TABLE} SET version_num = '9999'"
    execute(path, newer, f"UPDATE {PREFIX}info SET value = '9.1.0'")
    before = path.read_bytes()
    with pytest.raises(
        DatabaseError, match=rf"written by sweeper 9\.1\.0 \(schema 9999\); this is sweeper {__version__}"
    ):
        Database.open(path, create=create)
    assert path.read_bytes() == before
    execute(path, f"DROP TABLE {PREFIX}info")
    with pytest.raises(DatabaseError, match=r"written by a newer sweeper.*upgrade sweeper"):
        Database.open(path, create=create)


def test_a_truncated_database(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    Database.open(path, create=True).close()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatabaseError, match=r"is damaged or cut short.*restore a copy"):
        Database.open(path, create=True)
    assert path.read_bytes() == whole[: len(whole) // 2]


def test_a_database_with_noise_in_its_middle(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with Database.open(path, create=True) as database:
        execute(path, "PRAGMA wal_checkpoint(TRUNCATE)")
        content = path.read_bytes()
        assert database.studies.all() == ()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    with pytest.raises(DatabaseError, match="is damaged or cut short"), Database.open(path, create=False) as database:
        database.studies.all()


def test_a_locked_database(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with Database.open(path, create=True, busy_timeout_s=0.1) as database, closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert database.studies.all() == ()  # readers do not wait
        with pytest.raises(DatabaseError, match="is locked by another process"):
            database.metrics.add("itn", [(0, 1, {"loss": 1.0})])


def test_a_full_disk_loses_nothing_that_was_stored(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with Database.open(path, create=True) as database:

        @event.listens_for(database._transactions.engine, "checkout")
        def fill(connection: sqlite3.Connection, *_: object) -> None:
            connection.execute("PRAGMA max_page_count = 1")  # the size it has: as if no page were left

        create_study(database, "small")
        with pytest.raises(DatabaseError, match=r"the disk is full.*free some space"):
            create_study(database, "large", file_text="x" * 1_000_000)
        assert [study.name for study in database.studies.all()] == ["small"]
    assert integrity(path) == "ok"


def create_study(database: Database, name: str, file_text: str = "t") -> None:
    database.studies.create(
        name,
        file_name="f",
        file_text=file_text,
        config={},
        space={},
        seed=0,
        packages={},
        data_sha256={},
        base_model="m",
        base_model_fingerprint="f",
    )


def test_a_database_deleted_while_in_use(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with Database.open(path, create=True) as database:
        path.unlink()
        with pytest.raises(DatabaseError, match="was deleted, moved or replaced"):
            create_study(database, "itn")
        assert not path.exists()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user can enter: pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="sweeper-test-"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_read_only_database_can_be_read_and_not_written(open_folder: Path) -> None:
    path = open_folder / "x.db"
    with Database.open(path, create=True) as database:
        create_study(database, "itn")
    path.chmod(0o444)
    open_folder.chmod(0o555)
    # Permissions do not bind root: the child goes on as another user then, once all it needs is imported.
    child = python(
        """
        from sweeper.errors import DatabaseError
        import sweeper.store.migrations.runner
        path = Path(sys.argv[1])
        Database.open(path, create=False).close()
        if os.geteuid() == 0:
            os.setuid(65534)
        for act in (
            lambda: create(Database.open(path, create=True), "other"),
            lambda: Database.open(path.with_name("new.db"), create=True),
            lambda: Database.open(path.parent / "new folder" / "x.db", create=True),
        ):
            try:
                act()
            except DatabaseError as error:
                print(error)
        """,
        path,
    )
    out, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors
    lines = out.splitlines()
    assert len(lines) == 3
    assert "cannot be written" in lines[0] or "cannot be opened" in lines[0]
    assert "cannot be used (Permission denied)" in lines[1]
    assert "cannot be used (Permission denied)" in lines[2]
    assert [file.name for file in open_folder.iterdir() if not file.name.endswith(".lock")] == ["x.db"]


def test_several_processes_open_a_new_file_at_once(tmp_path: Path) -> None:
    path, start = tmp_path / "home" / "x.db", tmp_path / "start"
    code = """
        print("ready", flush=True)
        while not Path(sys.argv[2]).exists():
            time.sleep(0.001)
        with Database.open(Path(sys.argv[1]), create=True) as database:
            create(database, sys.argv[3])
            print(len(database.studies.all()))
    """
    children = [python(code, path, start, f"study-{index}") for index in range(4)]
    for child in children:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
    start.touch()
    for child in children:
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 0, errors
    with Database.open(path, create=False) as database:
        assert {study.name for study in database.studies.all()} == {f"study-{index}" for index in range(4)}


@pytest.mark.parametrize("wait_s", [0.05, 0.2])
def test_kill_9_while_writing_leaves_whole_batches(tmp_path: Path, wait_s: float) -> None:
    path = tmp_path / "x.db"
    child = python(
        """
        with Database.open(Path(sys.argv[1]), create=True) as database:
            create(database, "itn")
            print("writing", flush=True)
            for index in range(100_000):
                data = {"index": index, "filler": "x" * 5_000}
                database.events.add("itn", "step", "s" * 1_000, data=data)
        """,
        path,
    )
    assert child.stdout is not None and child.stdout.readline() == "writing\n"
    time.sleep(wait_s)
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=30)
    assert child.returncode == -signal.SIGKILL
    with Database.open(path, create=False) as database:
        events = database.events.all("itn")
        assert [item.data["index"] for item in events if item.data] == list(range(len(events)))
        database.events.add("itn", "after", "goes on")
    assert integrity(path) == "ok"


def test_kill_9_while_creating_leaves_a_file_that_opens(tmp_path: Path) -> None:
    for index, wait_s in enumerate((0.0, 0.01, 0.05, 0.15)):
        path = tmp_path / f"{index}.db"
        child = python("print('go', flush=True)\nDatabase.open(Path(sys.argv[1]), create=True)", path)
        assert child.stdout is not None and child.stdout.readline() == "go\n"
        time.sleep(wait_s)
        child.kill()
        child.communicate(timeout=30)
        with Database.open(path, create=True) as database:
            create_study(database, "itn")
        assert integrity(path) == "ok"
