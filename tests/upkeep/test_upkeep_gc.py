"""``sweeper gc``: what is left over goes, each with its reason; nothing that anybody needs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from sweeper.cli.main import app
from sweeper.config.trial import Outcome
from sweeper.files.temporary import temporary_path
from sweeper.paths import Home
from sweeper.store import StudyState


def gc(*arguments, code=0):
    result = CliRunner().invoke(app, ["gc", *arguments, "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if code == 0 else result


def kinds(found):
    return sorted(each["kind"] for each in found["leftovers"])


@pytest.fixture(scope="module")
def dead_pid():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_tidy_home_has_nothing_to_do(begun):
    study = begun()
    study.end()
    study.stop()
    before = tree(study.home.folder)
    assert gc() == {"removed": True, "bytes": 0, "leftovers": [], "left_alone": []}
    assert set(tree(study.home.folder)) - set(before) <= {"sweeper.db.kept.lock", "sweeper.db-shm", "sweeper.db-wal"}


def test_temporary_files_of_dead_processes_go_and_those_of_living_ones_stay(begun, old, dead_pid):
    study = begun()
    number = study.end()
    study.stop()
    folder = study.paths.trial(number).folder
    dead, alive, young = (
        temporary_path(folder / "result.json", dead_pid),
        temporary_path(folder / "result.json"),
        folder / f".spec.json.{dead_pid}.tmp",
    )
    half = temporary_path(folder / "adapter", dead_pid)
    half.mkdir()
    registered = study.home.folder / "adapters" / "kept" / ".v1.tmp"
    registered.mkdir(parents=True)
    for file in (dead, alive, young, half / "adapter_model.safetensors", registered / "adapter_model.safetensors"):
        file.write_text("half")
    old(dead, half, registered)
    found = gc("--dry-run")
    assert kinds(found) == ["temporary"] * 3
    assert found["bytes"] == 12 and found["removed"] is False
    assert dead.exists()
    gc()
    assert [path.exists() for path in (dead, half, registered, alive, young)] == [False, False, False, True, True]


def test_folders_of_studies_that_the_database_does_not_know(begun, old):
    study = begun()
    study.stop()
    studies = study.home.folder / "studies"
    unknown, young, pipeline = (studies / name for name in ("unknown", "young", "rlhf"))
    for folder in (unknown, young, pipeline):
        folder.mkdir()
        (folder / "data.jsonl").write_text("rows")
    (pipeline / "pipeline.json").write_text("{}")
    old(unknown, pipeline)
    found = gc()
    assert [each["path"] for each in found["leftovers"]] == [str(unknown)]
    assert found["leftovers"][0]["why"] == "the database knows no study unknown"
    assert [folder.exists() for folder in (unknown, young, pipeline)] == [False, True, True]


def test_what_ended_trials_were_stopped_with(begun):
    study = begun()
    waits = study.start()
    result = study.leave(waits, Outcome.PAUSED)
    study.record(result)
    study.search.tell(waits, result)
    ended = study.end(outcome=Outcome.PRUNED)
    study.paths.trial(ended).frozen.mkdir()
    (study.paths.trial(ended).frozen / "slot.json").write_text("{}")
    study.stop()
    found = gc("kept")
    assert [(each["kind"], each["number"]) for each in found["leftovers"]] == [("frozen", ended)]
    assert not study.paths.trial(ended).frozen.exists()
    assert study.paths.trial(waits).is_frozen


def test_adapters_beyond_the_policy_recorded_or_not(begun):
    study = begun(keep={"best": 2})
    for value in (5.0, 1.0, 4.0, 2.0):
        study.end(value)
    pruned = study.end(outcome=Outcome.PRUNED)
    study.save_adapter(pruned)
    study.database.artifacts.forget("kept", 0)  # from before files were recorded
    study.stop(StudyState.FINISHED)
    found = gc()
    assert {each["number"] for each in found["leftovers"]} == {0, 2, pruned}
    assert "best 2" in next(each["why"] for each in found["leftovers"] if each["number"] == 0)
    assert study.adapters() == [1, 3]
    assert {each.number for each in study.database.artifacts.all("kept")} == {1, 3}
    assert gc()["leftovers"] == []


def test_nothing_registered_goes(begun):
    study = begun(keep={"best": 1}, evaluation={"metrics": ["exact_match"], "candidates": 1})
    for value in (9.0, 1.0, 5.0):
        study.end(value)
    version = study.register(0)
    study.stop(StudyState.FINISHED)
    before = tree(version.folder)
    gc()
    assert tree(version.folder) == before
    assert study.adapters() == [0, 1]


def test_a_study_that_is_run_is_left_alone(begun):
    study = begun(keep={"best": 1}, evaluation={"metrics": ["exact_match"], "candidates": 1})
    for value in (9.0, 1.0, 5.0):
        study.end(value)
    study.database.workers.join("kept", "a" * 32, "cpu", expires_in_s=60)
    found = gc()
    assert found["leftovers"] == []
    assert found["left_alone"] == ["study kept is running, and applies its keep policy itself"]
    assert study.adapters() == [0, 1, 2]


def test_merged_models_that_no_study_begins_from(begun, old):
    study = begun(model="adapter:base@2")
    study.stop()
    needed, needless, young = study.home.start("base", 2), study.home.start("base", 1), study.home.start("other", 1)
    for folder in (needed, needless, young):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_text("weights")
    old(needed, needless)
    found = gc()
    assert [each["path"] for each in found["leftovers"]] == [str(needless)]
    assert needed.exists() and young.exists() and not needless.exists()


def test_one_study_only_and_one_that_is_not_there(begun, old):
    begun("one", keep={"best": 1}).stop()
    begun("two").stop()
    unknown = Home.current().folder / "studies" / "unknown"
    unknown.mkdir()
    old(unknown)
    assert gc("one")["leftovers"] == []
    assert unknown.exists()
    failed = gc("on", code=2)
    assert "no study 'on'" in failed.stderr and "did you mean 'one'" in failed.stderr


def test_in_words(begun):
    study = begun(keep={"best": 1}, evaluation={"metrics": ["exact_match"], "candidates": 1})
    for value in (9.0, 1.0):
        study.end(value)
    study.stop(StudyState.FINISHED)
    shown = CliRunner().invoke(app, ["gc", "--dry-run"], env={"COLUMNS": "300"}).output
    assert "not among the adapters that are kept" in shown
    assert "would be deleted" in shown
    assert "1 item, " in CliRunner().invoke(app, ["gc"]).output
    assert "nothing to delete" in CliRunner().invoke(app, ["gc"]).output
