"""Which database a home has, and that no password of it is ever shown."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import yaml

from sweeper.config.loader import load_study
from sweeper.config.study import StudyConfig
from sweeper.database_url import PostgresUrl
from sweeper.errors import DatabaseError, StudyFileError
from sweeper.paths import Home
from sweeper.store import bind

PASSWORD = "s3cr{0}t% @:/?é"
ENCODED = "s3cr%7B0%7Dt%25%20%40%3A%2F%3F%C3%A9"
URL = f"postgresql+psycopg://ada:{ENCODED}@db.example:5433/sweeps"


@pytest.mark.parametrize("text", [URL, f"postgres://ada@db.example:5433/sweeps?password={ENCODED}"])
def test_a_password_is_connected_with_and_never_shown(text):
    server = PostgresUrl.parse(text)
    url = server.url
    assert PASSWORD in (url.password, url.query.get("password"))
    for shown in (str(server), repr(server), f"{server}", server.hide(f"at {text} with {PASSWORD} or {ENCODED}")):
        assert "s3cr" not in shown and "***" in shown
    assert pickle.loads(pickle.dumps(server)) == server


def test_a_variable_stays_a_reference_until_it_is_connected(monkeypatch):
    server = PostgresUrl.parse("postgresql://ada:${PGPASSWORD}@db.example/${DB}")
    with pytest.raises(DatabaseError, match="the environment variable PGPASSWORD, which is not set"):
        _ = server.url
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    monkeypatch.setenv("DB", "sweeps")
    assert (server.url.password, server.url.database) == (PASSWORD, "sweeps")
    assert str(server) == "postgresql+psycopg://ada:${PGPASSWORD}@db.example/${DB}"
    assert "s3cr" not in server.hide(f"{PASSWORD} {ENCODED}")
    monkeypatch.setenv("WHOLE", URL)
    assert PostgresUrl.parse("${WHOLE}").url.password == PASSWORD
    assert PostgresUrl.parse("${WHOLE}").identity == PostgresUrl.parse(URL).identity


@pytest.mark.parametrize(
    "text",
    [
        "mysql://ada:s3cret@h/d",
        "s3cret",
        "",
        "postgres://ada:s3@cret@h/d",
        "postgres://h:s3cret/d",
        "postgresql+asyncpg://ada:s3cret@h/d",
    ],
)
def test_what_is_no_url_of_postgresql_is_refused_without_repeating_it(text):
    with pytest.raises(DatabaseError, match=r"URL|not supported") as caught:
        PostgresUrl.parse(text)
    assert "cret" not in str(caught.value)


def test_a_study_files_password_is_in_nothing_that_is_kept(study_file, tmp_path):
    file = study_file(storage=URL)
    assert file.config.storage.url.url.password == PASSWORD
    kept = file.text + file.config.model_dump_json() + repr(file.config) + repr(file)
    assert "s3cr" not in kept and "ada:***@" in file.text
    again = StudyConfig.model_validate_json(file.config.model_dump_json())  # what is stored can be read
    assert str(again.storage.url) == str(file.config.storage.url)
    changed = StudyConfig.model_validate(file.config.model_dump(exclude_unset=True))  # `--seed 5`
    assert changed.storage.url.url.password == PASSWORD


def test_a_password_that_yaml_hides_is_refused(study_file, tmp_path):
    path = study_file().path
    escaped = URL.replace("s3cr", "s3\\x63r")
    path.write_text(path.read_text() + f'storage: "{escaped}"\n')
    with pytest.raises(StudyFileError, match="storage: holds a password with YAML escapes"):
        load_study(path)


@pytest.mark.parametrize(
    "storage", ["mysql://ada:s3cret@h/d", {"url": ["postgres://a:s3cret@h/d"]}, ["postgres://a:s3cret@h/d"], "s3cret"]
)
def test_a_wrong_storage_is_a_fault_of_its_line_that_shows_no_password(study_file, storage):
    path = study_file().path
    path.write_text(path.read_text() + yaml.safe_dump({"storage": storage}))
    with pytest.raises(StudyFileError) as caught:
        load_study(path)
    assert "s3cret" not in str(caught.value) and caught.value.faults[0].field.startswith("storage")


def test_a_home_has_one_database(tmp_path, monkeypatch):
    home = Home(tmp_path / "home")
    assert home.database == home.database_file == tmp_path / "home" / "sweeper.db"
    monkeypatch.setenv("SWEEPER_STORAGE", URL)
    assert home.database == PostgresUrl(URL)
    home.folder.mkdir()
    home.database_file.touch()
    with pytest.raises(DatabaseError, match="sweeper migrate-storage") as caught:
        _ = home.database
    assert "s3cr" not in str(caught.value)
    home.bind(PostgresUrl(URL))
    assert home.binding.stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("SWEEPER_STORAGE", URL.replace(ENCODED, "another"))  # the same one, with another password
    assert home.database == PostgresUrl(URL.replace(ENCODED, "another"))
    monkeypatch.setenv("SWEEPER_STORAGE", URL.replace("5433", "5434"))
    with pytest.raises(DatabaseError, match=r"is bound to .* and SWEEPER_STORAGE names") as caught:
        _ = home.database
    assert "s3cr" not in str(caught.value)
    monkeypatch.delenv("SWEEPER_STORAGE")
    assert home.database == PostgresUrl(URL)
    home.binding.write_text("nonsense")
    with pytest.raises(DatabaseError, match="which names the database of this home: the database URL cannot be read"):
        _ = home.database


def test_a_study_that_asks_for_another_database_is_refused(study_file, server: PostgresUrl, monkeypatch):
    home = Home.current()
    wanted = study_file(storage=server.written).config.storage
    bind(home, None)
    assert not home.folder.exists()
    bind(home, wanted)
    assert home.database == server
    bind(home, wanted)
    other = study_file(storage=URL).config.storage
    with pytest.raises(DatabaseError, match="set SWEEPER_HOME to another folder") as caught:
        bind(home, other)
    assert "s3cr" not in str(caught.value)
    with pytest.raises(DatabaseError, match="asks for its own SQLite file"):
        bind(home, study_file(storage="sqlite").config.storage)


def test_a_database_that_cannot_be_reached_binds_nothing(study_file):
    home, nowhere = Home.current(), "postgresql+psycopg://ada:s3cret@127.0.0.1:1/sweeps"
    with pytest.raises(DatabaseError, match="cannot be reached") as caught:
        bind(home, study_file(storage=nowhere).config.storage)
    assert "s3cret" not in str(caught.value)
    assert home.bound is None and not Path(home.binding).exists()
