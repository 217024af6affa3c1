"""``sweeper doctor STUDY``: every inconsistency is made for real, found, explained, and mended where it can be."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys

import pytest
from damaging import HOW, flip
from typer.testing import CliRunner

from sweeper.cli.main import app
from sweeper.config.trial import Outcome
from sweeper.files.temporary import temporary_path
from sweeper.search.storages.open import open_storage
from sweeper.search.storages.stored_trials import stored_trials
from sweeper.store import SCORING, Database, StudyState
from sweeper.upkeep.doctor import CHECKS, diagnose

WEIGHTS = "adapter_model.safetensors"


def examine(study, *, repair=False):
    return diagnose(study.home, study.name, repair=repair, on_progress=lambda text, fraction: None)


def only(found):
    (one,) = found
    return one


def mended(study, kind):
    """Find one inconsistency of a kind, mend it, and see that it is gone and stays so."""
    one = only(examine(study))
    assert (one.kind, one.mendable, one.mended) == (kind, True, None)
    assert "`--repair`" in one.advice
    repaired = only(examine(study, repair=True))
    assert repaired.kind == kind and repaired.mended
    assert examine(study) == []
    assert examine(study, repair=True) == []
    assert study.database.events.all(study.name)[-1].kind == "repaired"
    return one


def explained(study, kind):
    """Find one inconsistency that only a person can mend: it is explained, and a repair leaves it."""
    one = only(examine(study))
    assert (one.kind, one.mendable) == (kind, False)
    assert one.advice
    assert only(examine(study, repair=True)) == one
    return one


@pytest.fixture
def study(begun):
    """A study of two trials that was stopped."""
    found = begun()
    found.end(1.0)
    found.end(2.0)
    found.stop()
    return found


def row(study, sql, *values):
    with sqlite3.connect(study.home.database) as connection:
        connection.execute(sql, values)
    connection.close()


def state(study, number):
    return stored_trials(study.name, open_storage(study.home.database))[number].state


def test_a_study_that_agrees(study):
    assert examine(study) == []
    shown = CliRunner().invoke(app, ["doctor", "kept"])
    assert (shown.exit_code, shown.stdout.strip()) == (0, "study kept: database, search and files are consistent")


def test_a_study_that_was_interrupted_in_good_order_agrees(begun):
    study = begun()
    for outcome in (Outcome.INTERRUPTED, Outcome.PAUSED):
        number = study.start()
        result = study.leave(number, outcome)
        study.record(result)
        study.search.tell(number, result)
    for outcome in (Outcome.PRUNED, Outcome.DIVERGED, Outcome.INFEASIBLE, Outcome.FAILED):
        study.end(outcome=outcome)
    study.search.order(1, {"learning_rate": 5e-3})
    study.stop()
    assert examine(study) == []


# ---- the database, the search, and each other


def test_no_search(study):
    import optuna

    optuna.delete_study(study_name="kept", storage=open_storage(study.home.database))
    assert "no search of that name" in explained(study, "no search").text


def test_a_search_without_its_study(begun, study):
    other = begun("other")
    row(study, "DELETE FROM sweeper_studies WHERE name = 'other'")
    one = only(examine(other))
    assert (one.kind, one.mendable) == ("search without study", True)
    assert only(examine(other, repair=True)).mended == "removed the search"
    result = CliRunner().invoke(app, ["doctor", "other"])
    assert result.exit_code == 2 and "no study 'other'" in result.stderr


def test_a_trial_that_the_search_does_not_know(study):
    row(study, "UPDATE sweeper_trials SET number = 7 WHERE number = 1")
    row(study, "UPDATE sweeper_artifacts SET number = 7 WHERE number = 1")
    study.paths.trial(1).folder.rename(study.paths.trial(7).folder)
    row(study, "UPDATE trials SET state = 'FAIL' WHERE number = 1")
    row(
        study,
        "INSERT INTO trial_user_attributes (trial_id, key, value_json) "
        "SELECT trial_id, 'reason', '\"interrupted\"' FROM trials WHERE number = 1",
    )
    assert "trial 7" in explained(study, "trial without search").text


def test_a_trial_that_was_given_out_and_never_begun(begun):
    study = begun()
    study.ask()
    study.stop()
    mended(study, "search without trial")
    again = study.reopen().ask()
    assert again.restarts == 0


def test_a_trial_that_is_in_the_search_and_on_disk_only(study):
    row(study, "DELETE FROM sweeper_trials WHERE number = 1")
    row(study, "DELETE FROM sweeper_artifacts WHERE number = 1")
    mended(study, "search without trial")
    trial = study.database.trials.get("kept", 1)
    assert (trial.outcome, trial.value, trial.kind) == (Outcome.COMPLETE, 2.0, "sampled")
    assert len(study.database.artifacts.all("kept", 1)) == 2


def test_a_trial_that_is_in_the_search_only(study):
    row(study, "DELETE FROM sweeper_trials WHERE number = 1")
    row(study, "DELETE FROM sweeper_artifacts WHERE number = 1")
    shutil.rmtree(study.paths.trial(1).folder)
    explained(study, "search without trial")


def test_states_that_disagree(study):
    row(study, "UPDATE sweeper_trials SET outcome = 'pruned' WHERE number = 1")
    shutil.rmtree(study.paths.trial(1).adapter)
    row(study, "DELETE FROM sweeper_artifacts WHERE number = 1")
    text = explained(study, "states disagree").text
    assert "pruned in the database, and complete in the search" in text


def test_an_end_that_the_search_was_not_told(begun):
    """The process died between database and search."""
    study = begun()
    number = study.start()
    study.record(study.leave(number, value=2.5))
    study.stop()
    mended(study, "end not told")
    assert state(study, number) == "complete"
    assert study.reopen().best()[0].value == 2.5


@pytest.mark.parametrize("before", [None, Outcome.INTERRUPTED, Outcome.PAUSED])
def test_a_result_on_disk_that_was_not_recorded(begun, before):
    study = begun()
    number = study.start()
    if before is not None:
        result = study.leave(number, before)
        study.record(result)
        study.search.tell(number, result)
        shutil.rmtree(study.paths.trial(number).frozen)
        study.database.artifacts.forget("kept", number)
    study.leave(number, value=2.5)
    study.stop()
    mended(study, "result not recorded")
    trial = study.database.trials.get("kept", number)
    assert (trial.outcome, trial.value, state(study, number)) == (Outcome.COMPLETE, 2.5, "complete")
    assert len(study.database.artifacts.all("kept", number)) == 2


def test_running_without_a_process(begun):
    study = begun()
    number = study.start()
    study.stop()
    mended(study, "running without a process")
    assert study.database.trials.get("kept", number).outcome is Outcome.INTERRUPTED
    assert study.reopen().interrupted() == [number]


def test_running_here_and_begun_again_there(begun):
    """The process died between queueing a trial again and saying so; its old result is not counted beside the new."""
    study = begun()
    number = study.start()
    study.reopen().requeue(number)
    study.leave(number)
    study.stop()
    one = only(each for each in examine(study) if each.kind == "running without a process")
    assert one.mendable
    examine(study, repair=True)
    assert study.database.trials.get("kept", number).outcome is Outcome.INTERRUPTED
    assert study.reopen().best() == []


def test_a_state_that_no_process_upholds(begun):
    for value in (StudyState.RUNNING, StudyState.PAUSED):
        study = begun(f"is-{value}")
        study.stop(value)
        mended(study, "no process")
        assert study.database.studies.get(study.name).state is StudyState.INTERRUPTED


def dead_worker(study):
    """A worker whose process has ended, holding trial 0."""
    code = (
        "import sys; from pathlib import Path; from sweeper.store import Database\n"
        "with Database.open(Path(sys.argv[1]), create=False) as database:\n"
        "    database.workers.join('kept', 'd' * 32, 'cpu', expires_in_s=3600)\n"
        "    database.leases.take('kept', 0, 'd' * 32)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(study.home.database)], check=True)


def test_a_dead_worker_and_its_leases(study):
    dead_worker(study)
    mended(study, "dead worker")
    assert study.database.leases.all("kept") == ()


def test_leases_of_nobody(study):
    for number in (1, SCORING):
        study.database.leases.take("kept", number, "e" * 32)
    found = examine(study)
    assert [each.kind for each in found] == ["stale lease"] * 2
    assert "the final scoring" in found[0].text and "trial 1" in found[1].text
    assert all(each.mended for each in examine(study, repair=True))
    assert examine(study) == []


def test_a_result_that_cannot_be_read(begun):
    study = begun()
    number = study.start()
    study.database.trials.interrupt("kept", [number], "for the test")
    study.paths.trial(number).result.write_text('{"number": 0, "outcome"')
    study.stop()
    mended(study, "result unreadable")
    assert not study.paths.trial(number).result.exists()


# ---- files


@pytest.mark.parametrize("how", HOW)
def test_a_damaged_adapter_is_set_aside(study, how):
    damaging, said = HOW[how]
    damaging(study.paths.trial(1).adapter / WEIGHTS)
    assert said in mended(study, "adapter damaged").text
    assert study.adapters() == [0]
    assert study.database.artifacts.all("kept", 1) == ()


def test_an_adapter_that_is_gone_altogether(study):
    shutil.rmtree(study.paths.trial(1).adapter)
    assert "is missing" in mended(study, "adapter damaged").text


def test_a_damaged_adapter_comes_back_from_its_registered_version(study):
    study.register(1)
    flip(study.paths.trial(1).adapter / WEIGHTS)
    assert "copies it back from kept v1" in mended(study, "adapter damaged").advice
    assert study.adapters() == [0, 1]


def test_a_damaged_version_comes_back_from_its_trial(study):
    version = study.register(1)
    flip(version.folder / WEIGHTS)
    assert "has changed" in mended(study, "version damaged").text
    shutil.rmtree(version.folder)
    assert "is missing" in mended(study, "version damaged").text


def test_a_damaged_version_without_its_trial_is_left_to_a_backup(study):
    version = study.register(1)
    study.database.artifacts.forget("kept", 1)
    shutil.rmtree(study.paths.trial(1).adapter)
    flip(version.folder / WEIGHTS)
    assert "do not use it" in explained(study, "version damaged").advice


def test_an_adapter_that_was_not_recorded(study):
    study.database.artifacts.forget("kept", 1)
    mended(study, "adapter not recorded")
    assert len(study.database.artifacts.all("kept", 1)) == 2
    study.database.artifacts.forget("kept", 1)
    flip(study.paths.trial(1).adapter / WEIGHTS)
    mended(study, "adapter damaged")


@pytest.mark.parametrize("recorded", [True, False])
def test_a_damaged_frozen_trial_begins_again(begun, recorded):
    study = begun()
    number = study.start()
    result = study.leave(number, Outcome.INTERRUPTED)
    if recorded:
        study.record(result)
    else:
        study.database.trials.interrupt("kept", [number], "killed")
    study.search.tell(number, result)
    study.stop()
    flip(study.paths.trial(number).frozen / "slot.safetensors")
    assert "begins the trial again" in mended(study, "stopped trial damaged").advice
    assert not study.paths.trial(number).is_frozen


@pytest.mark.parametrize("part", ["frozen", "adapter"])
def test_files_that_an_ended_trial_should_not_have(begun, part):
    study = begun()
    number = study.end(outcome=Outcome.PRUNED)
    folder = getattr(study.paths.trial(number), part)
    folder.mkdir()
    (folder / "file").write_text("left")
    study.stop()
    mended(study, "needless files")
    assert not folder.exists()


def test_a_specification_that_is_gone(study):
    study.paths.trial(1).spec.unlink()
    explained(study, "specification gone")


def test_a_trial_that_nothing_knows(study):
    study.paths.trial(41).folder.mkdir()
    assert "00041" in explained(study, "unknown trial").text


@pytest.mark.parametrize("how", ["changed", "gone"])
def test_data_that_changed(study, how):
    file = study.paths.data / "train.jsonl"
    file.unlink() if how == "gone" else file.write_text("{}\n")
    assert "train.jsonl" in explained(study, "data changed").text


def test_a_base_model_that_is_gone_or_another(study):
    (study.model / "config.json").write_text('{"model_type": "other"}')
    explained(study, "base model changed")
    (study.model / "model.safetensors").write_bytes(b"cut")
    (study.model / "config.json").unlink()
    explained(study, "base model changed")
    shutil.rmtree(study.model)
    explained(study, "base model gone")


@pytest.mark.parametrize("content", [None, "{", '{"models": []}'])
def test_a_resolution_that_is_gone_or_damaged(study, content):
    study.paths.resolved.unlink() if content is None else study.paths.resolved.write_text(content)
    explained(study, "resolution gone")


def test_what_a_dead_process_left_half_written(study, old):
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    left = temporary_path(study.paths.trial(0).adapter, process.pid)
    left.mkdir()
    (left / WEIGHTS).write_text("half")
    old(left)
    mended(study, "temporary file")
    assert not left.exists()


# ---- the database itself


def test_rows_that_refer_to_nothing(study):
    row(study, "INSERT INTO sweeper_leases VALUES (77, 0, 'x', 0, '2026-01-01')")
    assert "refers to a row of sweeper_studies" in explained(study, "database damaged").text


def test_a_damaged_database_is_named(study):
    study.database.close()
    with sqlite3.connect(study.home.database) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'sweeper_events'").fetchone()[0]
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    connection.close()
    with study.home.database.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * 100)
    result = CliRunner().invoke(app, ["doctor", "kept", "--json"])
    assert result.exit_code in (1, 2)
    said = result.stdout + result.stderr
    assert "damaged" in said and ".recover command" in said


def test_an_older_schema_is_brought_up_to_date_by_a_repair(study):
    row(study, "UPDATE sweeper_alembic_version SET version_num = '0003'")
    for table in ("artifacts", "leases", "workers", "decisions"):
        row(study, f"DROP TABLE sweeper_{table}")
    row(study, "ALTER TABLE sweeper_trials DROP COLUMN decisions_recorded")
    result = CliRunner().invoke(app, ["doctor", "kept"])
    assert result.exit_code == 2 and "older sweeper" in result.stderr
    found = examine(study, repair=True)
    assert next(each.kind for each in found if each.mended) == "schema"
    assert examine(study) == []


# ---- the command


def test_a_study_that_is_run_is_looked_at_but_not_repaired(begun):
    study = begun()
    study.end()
    study.start()
    study.database.workers.join("kept", "a" * 32, "cpu", expires_in_s=60)
    assert examine(study) == []
    result = CliRunner().invoke(app, ["doctor", "kept", "--repair"])
    assert result.exit_code == 2
    assert "`sweeper stop kept` first" in result.stderr


def test_several_at_once_in_words_and_as_json(study):
    flip(study.paths.trial(1).adapter / WEIGHTS)
    (study.paths.data / "test.jsonl").unlink()
    dead_worker(study)
    shown = CliRunner().invoke(app, ["doctor", "kept"])
    assert shown.exit_code == 1
    assert "`sweeper doctor kept --repair` repairs 2 of 3" in shown.output
    result = CliRunner().invoke(app, ["doctor", "kept", "--repair", "--json"])
    found = json.loads(result.stdout)
    assert result.exit_code == 1 and found["healthy"] is False
    assert [(each["kind"], bool(each["mended"])) for each in found["findings"]] == [
        ("dead worker", True),
        ("adapter damaged", True),
        ("data changed", False),
    ]
    assert len(CHECKS) == len(set(CHECKS))


def test_repair_needs_a_study():
    result = CliRunner().invoke(app, ["doctor", "--repair"])
    assert result.exit_code == 2 and "needs the name of a study" in result.stderr


def test_looking_changes_nothing(study):
    flip(study.paths.trial(1).adapter / WEIGHTS)
    dead_worker(study)
    before = {str(path): path.stat().st_mtime_ns for path in study.paths.folder.rglob("*")}
    with Database.open(study.home.database, create=False) as database:
        events = database.events.all("kept")
    examine(study)
    assert {str(path): path.stat().st_mtime_ns for path in study.paths.folder.rglob("*")} == before
    assert study.database.events.all("kept") == events
