"""A home of the code before its modules were moved (see ``make_former_home.py``), opened, resumed and finished."""

import json
import sqlite3
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sweeper.cli.main import app
from sweeper.config.trial import Outcome
from sweeper.executors.listener import Listener
from sweeper.paths import Home
from sweeper.registry import Registry
from sweeper.store import Database, StudyState
from sweeper.store.migrations import HEAD, VERSION_TABLE
from sweeper.study.run import resume_study

ARCHIVE = Path(__file__).with_name("former_home.tar.xz")
PLACEHOLDER = "@ROOT@"
TEXT = ("CHAR", "TEXT", "JSON")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The unpacked home, its paths those of this test."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    for path in (tmp_path / "home").rglob("*.json"):
        if PLACEHOLDER in (text := path.read_text(encoding="utf-8")):
            path.write_text(text.replace(PLACEHOLDER, str(tmp_path)), encoding="utf-8")
    found = Home(tmp_path / "home")
    with sqlite3.connect(found.database) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for _, column, kind, *_ in connection.execute(f"PRAGMA table_info({table})").fetchall():
                if any(word in kind.upper() for word in TEXT):
                    connection.execute(
                        f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?) WHERE instr("{column}", ?)',
                        (PLACEHOLDER, str(tmp_path), PLACEHOLDER),
                    )
    connection.close()
    monkeypatch.setenv("SWEEPER_HOME", str(found.folder))
    return found


class Watching(Listener):
    def __init__(self):
        self.first_step, self.notes = {}, []

    def trial_reported(self, number, step, metrics):
        self.first_step.setdefault(number, step)

    def note(self, text):
        self.notes.append(text)


def trials_of(home, name):
    with Database.open(home.database, create=False) as database:
        return {trial.number: trial for trial in database.trials.all(name)}


def shown(*arguments):
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"}, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_its_schema_is_migrated_and_it_can_be_looked_at(home):
    with Database.open(home.database, create=True) as database:  # as `sweeper run` opens it
        states = {study.name: study.state for study in database.studies.all()}
        (version,) = Registry(home, database).all("done")
    assert states == {
        "done": StudyState.FINISHED, "packed": StudyState.INTERRUPTED, "inline": StudyState.INTERRUPTED
    }  # fmt: skip
    assert (version.version, version.lineage.trial) == (1, 0)
    with sqlite3.connect(home.database) as connection:
        assert connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone() == (HEAD,)
    connection.close()
    assert "interrupted" in shown("status", "packed")
    listed = json.loads(shown("trials", "packed", "--json"))
    assert [trial["outcome"] for trial in listed] == ["complete", "paused", "paused", "interrupted", "interrupted"]
    assert "complete" in shown("trials", "inline")
    assert "done" in shown("adapters", "list")


@pytest.mark.parametrize(
    ("name", "kept", "waited"),
    [("packed", {0}, {3: 4, 4: 2}), ("inline", {0, 1, 2}, {3: 2})],
    ids=["packed", "inline"],
)
def test_a_stopped_study_is_resumed_to_its_end(home, name, kept, waited):
    before, listener = trials_of(home, name), Watching()
    paths = [home.study(name).trial(number) for number in kept]
    files = {path: path.read_bytes() for trial in paths for path in (trial.spec, trial.result)}
    resume_study(name, home=home, listener=listener, force=True)
    after = trials_of(home, name)
    assert {number for number, trial in before.items() if not trial.outcome.is_open} == kept
    assert {number: after[number] for number in kept} == {number: before[number] for number in kept}
    assert {path: path.read_bytes() for path in files} == files
    assert {number: listener.first_step[number] for number in waited} == waited
    assert not kept & listener.first_step.keys()
    assert any("stopped trial(s)" in note for note in listener.notes)
    assert all(trial.outcome in (Outcome.COMPLETE, Outcome.PRUNED) for trial in after.values())
    queued = after[5 if name == "packed" else 4]  # ordered, and not begun, when the study was stopped
    assert queued.parameters["learning_rate"] == 5e-3
    assert len(after) >= 6
    with Database.open(home.database, create=False) as database:
        assert database.studies.get(name).state is StudyState.FINISHED
        assert len(Registry(home, database).all(name)) == 1
        decisions = {number: database.decisions.of(name, number) for number in after}
        begun_now = after.keys() - before.keys()
        assert all(decisions[number] is None for number in kept) and None not in [decisions[n] for n in begun_now]
        assert any(decisions.values()), "those that were taken after the migration are recorded"
    shown("status", name)
    shown("trials", name)
    shown("best", name)
