"""From an SQLite file to a server: every row, or none; and what stands in the way."""

from __future__ import annotations

import math
import os
from dataclasses import asdict

import optuna
import pytest
from postgres_server import Postgres
from test_store_records import result

from sweeper.cli.main import app
from sweeper.database_url import PostgresUrl
from sweeper.errors import DatabaseError, StudyStateError
from sweeper.paths import Home
from sweeper.search.storages.open import open_storage
from sweeper.store import Database, Evaluation, Example, ScoreRecord, TrialKind
from sweeper.upkeep.migrate_storage import migrate

optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture
def home(spec) -> Home:
    """A home whose database has rows of every difficult kind, ours and Optuna's."""
    home = Home.current()
    with Database.open(home.database, create=True) as database:
        _fill(database, spec)
    storage = open_storage(home.database)
    study = optuna.create_study(study_name="itn", storage=storage, directions=["minimize"])
    for value in (0.5, math.inf, -math.inf):
        trial = study.ask()
        trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True)
        trial.suggest_categorical("rank", [8, "sixteen", None, True])
        trial.report(value, 1)
        trial.report(math.nan, 2)
        trial.set_user_attr("text", "nul \0, emoji \U0001f600, {braces} 100%")
        study.tell(trial, value)
    study.enqueue_trial({"learning_rate": 1e-3})
    storage.remove_session()
    storage.engine.dispose()
    return home


def _fill(database: Database, spec) -> None:
    database.studies.create(
        "itn",
        file_name="itn.yaml",
        file_text="name: itn\r\n# s\u00f6me tabs\t\\ \u6f22\u5b57 \U0001f600\n",
        config={"name": "itn", "text": 'quotes " and \\n'},
        space={},
        seed=3,
        packages={},
        data_sha256={"train": "a" * 64},
        base_model="m",
        base_model_fingerprint="f",
    )
    for number in range(3):
        database.trials.start(spec(number), TrialKind.SAMPLED)
    steps = ((0, step, {"loss": 1 / (step + 3), "a b": math.nan, "Z": math.inf}, step / 7) for step in range(3_000))
    database.metrics.add("itn", steps)
    database.trials.finish("itn", result(0, value=0.1 + 0.2))
    scores = (ScoreRecord("exact_match", 0.25, 0.1, 0.4, None, None, None),)
    examples = (Example(0, "prompt\\N", "\\N", "\t\n\r", {"exact_match": 1.0}),)
    database.evaluations.add("itn", Evaluation(0, "test", scores), examples)


def everything(database: Database) -> list[object]:
    return [
        [asdict(study) for study in database.studies.all()],
        [asdict(trial) for trial in database.trials.all("itn")],
        [repr(point) for point in database.metrics.get("itn")],
        database.evaluations.all("itn"),
        database.evaluations.examples("itn", 0, "test"),
        database.events.all("itn"),
    ]


def optunas(home: Home) -> list[object]:
    storage = open_storage(home.database)
    found = optuna.load_study(study_name="itn", storage=storage).trials
    storage.remove_session()
    storage.engine.dispose()
    return [
        (
            t.number,
            t.state,
            t.values,
            t.params,
            t.distributions,
            repr(t.intermediate_values),
            t.user_attrs,
            t.system_attrs,
            t.datetime_start,
            t.datetime_complete,
        )
        for t in found
    ]


def test_every_row_arrives_and_the_home_uses_the_server(home: Home, server: PostgresUrl, spec, capsys, monkeypatch):
    with Database.open(home.database, create=False) as database:
        before, before_optuna = everything(database), optunas(home)
    monkeypatch.setenv("DATABASE", server.written)
    assert app(["migrate-storage", "${DATABASE}"], standalone_mode=False) in (None, 0)
    said = " ".join(capsys.readouterr().out.split())
    assert "1 studies" in said and "each compared" in said
    assert home.database == PostgresUrl("${DATABASE}") and home.binding.read_text() == "${DATABASE}\n"
    assert home.binding.stat().st_mode & 0o777 == 0o600
    assert not home.database_file.exists() and (home.folder / "sweeper-before-migration.db").exists()
    with Database.open(home.database, create=False) as database:
        assert everything(database) == before
        database.trials.start(spec(3), TrialKind.SAMPLED)  # numbered after those that came
        assert len(database.trials.all("itn")) == 4
    assert optunas(home) == before_optuna
    study = optuna.load_study(study_name="itn", storage=open_storage(home.database))
    assert study.ask().number == 3 and study.ask().number == 4
    with pytest.raises(DatabaseError, match=r"already bound to .*"):
        migrate(home, server)


def test_a_file_that_was_moved_takes_no_writes_any_more(home: Home, server: PostgresUrl):
    with Database.open(home.database, create=False) as former:
        migrate(home, server)
        with pytest.raises(DatabaseError, match="moved or replaced while in use"):
            former.events.add("itn", "note", "too late")


def test_what_ends_it_before_the_home_knows_leaves_the_home_and_it_goes_on(
    home: Home, server: PostgresUrl, monkeypatch
):
    def ended(self: Home, server: PostgresUrl) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Home, "bind", ended)
        with pytest.raises(KeyboardInterrupt):
            migrate(home, server)
    assert home.database == home.database_file
    with Database.open(home.database, create=False) as database:
        rows = len(database.metrics.get("itn"))
    moved = migrate(home, server)  # all is there: it is compared, not copied again
    with Database.open(home.database, create=False) as database:
        assert len(database.metrics.get("itn")) == rows and moved.studies == 1


def test_a_row_that_changes_on_its_way_is_noticed_and_nothing_is_stored(
    home: Home, server: PostgresUrl, postgres: Postgres
):
    Database.open(server, create=True).close()
    name = str(server.url.database)
    body = "BEGIN IF NEW.step = 2000 AND NEW.name = 'loss' THEN NEW.value = 7; END IF; RETURN NEW; END"
    postgres.execute(f"CREATE FUNCTION change() RETURNS trigger AS $$ {body} $$ LANGUAGE plpgsql", name)
    postgres.execute("CREATE TRIGGER t BEFORE INSERT ON sweeper_metrics FOR EACH ROW EXECUTE FUNCTION change()", name)
    with pytest.raises(DatabaseError, match=r"of table sweeper_metrics differs in .* nothing was stored"):
        migrate(home, server)
    assert home.database == home.database_file and home.database_file.exists()
    assert postgres.execute("SELECT count(*) FROM sweeper_studies", name) == [(0,)]
    assert postgres.execute("SELECT count(*) FROM trials", name) == [(0,)]


def test_a_database_with_other_studies_is_refused_and_left_alone(
    home: Home, server: PostgresUrl, postgres: Postgres, spec
):
    with Database.open(server, create=True) as database:
        _fill(database, spec)
        before = everything(database)
        with pytest.raises(DatabaseError, match="already holds studies"):
            migrate(home, server)
        assert everything(database) == before
    assert home.database == home.database_file


def test_a_study_that_is_being_run_is_named(home: Home, server: PostgresUrl):
    with Database.open(home.database, create=False) as database:
        database.workers.join("itn", "a", "cpu", expires_in_s=60)
        assert database.workers.alive("itn")[0].pid == os.getpid()
        with pytest.raises(StudyStateError, match="itn is running: `sweeper stop itn`"):
            migrate(home, server)
    assert home.database == home.database_file
