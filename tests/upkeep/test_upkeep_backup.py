"""``sweeper backup``: a home of its own, consistent though a study runs meanwhile; all of it or nothing."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading

import pytest
from damaging import flip
from typer.testing import CliRunner

from sweeper.cli.main import app
from sweeper.config.trial import Outcome
from sweeper.errors import BackupError
from sweeper.files.atomic import discard
from sweeper.files.checksums import sums_of
from sweeper.paths import Home
from sweeper.store import Database, StudyState
from sweeper.store.snapshot import snapshot
from sweeper.upkeep import backup as module
from sweeper.upkeep.backup import back_up
from sweeper.upkeep.doctor import diagnose


def quiet(text, fraction):
    return None


@pytest.fixture
def study(begun):
    """A study with a complete trial that is registered, a paused one and a pruned one; it was stopped."""
    found = begun()
    found.end(1.0)
    found.register(0)
    number = found.start()
    result = found.leave(number, Outcome.PAUSED)
    found.record(result)
    found.search.tell(number, result)
    found.end(outcome=Outcome.PRUNED)
    found.stop()
    return found


def agree(folder, name="kept"):
    """What the doctor finds in a copy."""
    return diagnose(Home(folder), name, repair=False, on_progress=quiet)


def test_the_copy_is_a_home_of_its_own(study, tmp_path, monkeypatch):
    done = back_up(study.home, tmp_path / "copy", on_progress=quiet)
    assert (done.folder, done.left_out, done.dump) == (tmp_path / "copy", (), None)
    for part in ("adapters/kept/v1", "studies/kept/trials/00000/adapter", "studies/kept/trials/00001/frozen"):
        assert sums_of(tmp_path / "copy" / part) == sums_of(study.home.folder / part)
    spec = json.loads((tmp_path / "copy/studies/kept/trials/00000/spec.json").read_text())
    assert spec["train"] == str(tmp_path / "copy/studies/kept/data/train.jsonl")
    assert spec["model_folder"] == str(study.model)
    shutil.rmtree(study.home.folder)  # it stands alone
    assert agree(tmp_path / "copy") == []
    monkeypatch.setenv("SWEEPER_HOME", str(tmp_path / "copy"))
    shown = json.loads(CliRunner().invoke(app, ["status", "--json"]).stdout)
    assert (shown[0]["name"], shown[0]["complete"], shown[0]["paused"]) == ("kept", 1, 1)
    assert CliRunner().invoke(app, ["adapters", "verify", "kept", "1"]).exit_code == 0


def test_nothing_secret_and_nothing_of_this_machine_is_in_it(study, tmp_path):
    study.home.dashboard_key.write_text("key")
    study.home.dashboard_users.write_text("{}")
    study.home.dashboard_secrets.write_text("secret")
    study.database.workers.join("kept", "a" * 32, "cpu", expires_in_s=60)
    back_up(study.home, tmp_path / "copy", on_progress=quiet)
    assert sorted(path.name for path in (tmp_path / "copy").iterdir() if "lock" not in path.name) == [
        "adapters",
        "studies",
        "sweeper.db",
    ]
    with Database.open(tmp_path / "copy" / "sweeper.db", create=False) as database:
        assert database.workers.all("kept") == ()


@pytest.mark.parametrize("taken", ["folder", "file", "inside"])
def test_a_destination_that_is_taken(study, tmp_path, taken):
    out = study.home.folder / "copy" if taken == "inside" else tmp_path / "copy"
    if taken == "folder":
        out.mkdir()
    elif taken == "file":
        out.write_text("mine")
    result = CliRunner().invoke(app, ["backup", str(out)])
    assert result.exit_code == 2
    assert ("inside the home" if taken == "inside" else "exists already") in result.stderr


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt(), RuntimeError("bug")])
def test_all_or_nothing(study, tmp_path, monkeypatch, fault):
    before = sorted(path.name for path in tmp_path.iterdir())

    def fail(*_):
        raise fault

    monkeypatch.setattr(module._Backup, "_trial", fail)
    with pytest.raises(BackupError if isinstance(fault, OSError) else type(fault)):
        back_up(study.home, tmp_path / "copy", on_progress=quiet)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_no_room(study, tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 10))
    with pytest.raises(BackupError, match="has 10 bytes free"):
        back_up(study.home, tmp_path / "copy", on_progress=quiet)
    assert not (tmp_path / "copy").exists()


def after_the_snapshot(monkeypatch, do):
    """Let something happen between the copy of the database and that of the files."""

    def then(*arguments):
        file = snapshot(*arguments)
        do()
        return file

    monkeypatch.setattr(module, "snapshot", then)


def test_an_adapter_that_the_policy_removes_meanwhile(study, tmp_path, monkeypatch):
    def collect():
        study.database.artifacts.forget("kept", 0)
        discard(study.paths.trial(0).adapter)

    after_the_snapshot(monkeypatch, collect)
    done = back_up(study.home, tmp_path / "copy", on_progress=quiet)
    assert done.left_out == ()
    assert agree(tmp_path / "copy") == []
    assert not (tmp_path / "copy/studies/kept/trials/00000/adapter").exists()


def test_a_paused_trial_that_goes_on_meanwhile_begins_again_in_the_copy(study, tmp_path, monkeypatch):
    def go_on():
        study.database.trials.reopen("kept", 1)
        study.leave(1, Outcome.INTERRUPTED, size=9)

    after_the_snapshot(monkeypatch, go_on)
    done = back_up(study.home, tmp_path / "copy", on_progress=quiet)
    assert done.left_out == ()
    assert agree(tmp_path / "copy") == []
    assert not (tmp_path / "copy/studies/kept/trials/00001/frozen").exists()


def test_a_trial_that_ends_meanwhile_has_not_ended_in_the_copy(begun, tmp_path, monkeypatch):
    study = begun()
    number = study.start()
    after_the_snapshot(monkeypatch, lambda: study.record(study.leave(number)))
    back_up(study.home, tmp_path / "copy", on_progress=quiet)
    folder = tmp_path / "copy/studies/kept/trials/00000"
    assert sorted(path.name for path in folder.iterdir()) == ["spec.json"]
    found = agree(tmp_path / "copy")
    assert sorted(each.kind for each in found) == ["no process", "running without a process"]


def test_what_a_running_trial_was_last_frozen_as(begun, tmp_path, old):
    study = begun()
    number = study.start()
    study.leave(number, Outcome.INTERRUPTED)
    old(study.paths.trial(number).frozen)
    back_up(study.home, tmp_path / "whole", on_progress=quiet)
    frozen = tmp_path / "whole/studies/kept/trials/00000/frozen"
    assert sums_of(frozen) == sums_of(study.paths.trial(number).frozen)
    flip(study.paths.trial(number).frozen / "slot.safetensors")
    old(study.paths.trial(number).frozen)
    back_up(study.home, tmp_path / "without", on_progress=quiet)
    assert not (tmp_path / "without/studies/kept/trials/00000/frozen").exists()


def test_what_is_damaged_is_left_out_and_named(study, tmp_path):
    flip(study.paths.trial(0).adapter / "adapter_model.safetensors")
    (study.paths.data / "test.jsonl").write_text("{}\n")
    flip(study.home.adapter("kept", 1) / "adapter_model.safetensors")
    result = CliRunner().invoke(app, ["backup", str(tmp_path / "copy"), "--json"])
    done = json.loads(result.stdout)
    assert result.exit_code == 1
    assert len(done["left_out"]) == 3
    assert all("is not what was recorded" in line for line in done["left_out"])
    assert {each.kind for each in agree(tmp_path / "copy")} == {"adapter damaged", "data changed", "version damaged"}


def test_a_damaged_database_is_not_copied(study, tmp_path):
    study.database.close()
    with sqlite3.connect(study.home.database) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'sweeper_metrics'").fetchone()[0]
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    connection.close()
    with study.home.database.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * 100)
    with pytest.raises(BackupError, match=r"no copy was made: database .* is damaged"):
        back_up(study.home, tmp_path / "copy", on_progress=quiet)
    assert not (tmp_path / "copy").exists()


def test_a_home_that_is_written_to_meanwhile(begun, tmp_path):
    """A runner of one thread ends trials as fast as it can; each of several backups is consistent in itself."""
    study = begun(keep={"best": 2})
    study.end(0.5)
    stop, failed = threading.Event(), []

    def run():
        from sweeper.executors.lifecycle.retention import collect

        try:
            value = 1.0
            while not stop.is_set() and study.search.remaining():
                value += 1
                study.end(1 / value)
                collect(study.database, study.paths, study.search, study.config, ended=False)
        except Exception as error:
            failed.append(error)

    runner = threading.Thread(target=run)
    runner.start()
    try:
        for turn in range(3):
            assert back_up(study.home, tmp_path / f"copy-{turn}", on_progress=quiet).left_out == ()
    finally:
        stop.set()
        runner.join()
    assert failed == []
    for turn in range(3):
        found = agree(tmp_path / f"copy-{turn}")
        allowed = {"no process", "running without a process", "end not told", "search without trial"}
        assert {each.kind for each in found} <= allowed
        diagnose(Home(tmp_path / f"copy-{turn}"), "kept", repair=True, on_progress=quiet)
        assert agree(tmp_path / f"copy-{turn}") == []


def test_progress_and_words(study, tmp_path):
    told = []
    back_up(study.home, tmp_path / "copy", on_progress=lambda text, fraction: told.append((text, fraction)))
    assert told[0] == ("copying the database", None)
    assert told[-1][0] == "copying the files" and told[-1][1] == 1.0
    fractions = [fraction for _, fraction in told[1:]]
    assert fractions == sorted(fractions)
    result = CliRunner().invoke(app, ["backup", str(tmp_path / "again")])
    assert result.exit_code == 0 and "the database and" in result.stdout


def test_a_database_on_a_server_without_pg_dump(tmp_path, monkeypatch):
    from sqlalchemy import make_url

    class Server:
        url = make_url("postgresql+psycopg://ann:secret@localhost:1/sweeper")

    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackupError, match="pg_dump is not on this machine") as error:
        snapshot(Server(), tmp_path)
    assert "secret" not in str(error.value)


def test_a_database_on_a_server_is_dumped_by_its_own_tool(tmp_path, monkeypatch):
    """The password is in the tool's environment, not among its arguments, which everyone on the machine can see."""
    from sqlalchemy import make_url

    class Server:
        url = make_url("postgresql+psycopg://ann:secret@localhost:1/sweeper")

    tool = tmp_path / "pg_dump"
    tool.write_text('#!/bin/sh\necho "$@ $PGPASSWORD" > "$(dirname "$0")/asked"; echo "no server" >&2; exit $FAILS\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("FAILS", "0")
    assert snapshot(Server(), tmp_path / "out") == tmp_path / "out" / "sweeper.pgdump"
    asked = (tmp_path / "asked").read_text().split()
    assert asked[-1] == "secret" and "--dbname=postgresql://ann@localhost:1/sweeper" in asked
    assert not any("secret" in word for word in asked[:-1])
    monkeypatch.setenv("FAILS", "1")
    with pytest.raises(BackupError, match="no server"):
        snapshot(Server(), tmp_path / "out")


def test_a_finished_study_stays_finished(begun, tmp_path):
    study = begun()
    study.end()
    study.stop(StudyState.FINISHED)
    back_up(study.home, tmp_path / "copy", on_progress=quiet)
    assert agree(tmp_path / "copy") == []
