from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from registered import register
from typer.testing import CliRunner

from sweeper.cli.main import app
from sweeper.config.data import DataConfig
from sweeper.data.splits import load_splits
from sweeper.paths import Home
from sweeper.store import Database, Feedback


def sweeper(*arguments: object):
    return CliRunner().invoke(app, ["adapters", "feedback", *map(str, arguments)])


@pytest.fixture
def given(begin):
    """A registered version, and what people thought of its answers."""
    version = register(begin())
    with Database.open(Home.current().database, create=False) as database:
        for number in range(30):
            database.feedback.add(
                Feedback(
                    at=datetime.now(UTC),
                    actor="ann",
                    adapter=version.name,
                    version=1,
                    base_model="tiny",
                    prompt=f"write {number}: [bold]",
                    answer="nothing",
                    good=False,
                    correction=str(number),
                    settings={},
                )
            )
    return version


def test_it_is_listed_and_printed_as_json(given):
    listed = sweeper("tiny")
    assert listed.exit_code == 0 and "write 29: [bold]" in listed.stdout and "down" in listed.stdout
    found = json.loads(sweeper("tiny", 1, "--json").stdout)
    assert len(found) == 30 and (found[0]["correction"], found[0]["good"]) == ("29", False)


@pytest.mark.parametrize(("kind", "learns"), [("completions", "answers"), ("pairs", "pairs"), ("labelled", "labelled")])
def test_it_becomes_the_data_of_a_study(given, tmp_path, kind, learns):
    out = tmp_path / "feedback.jsonl"
    result = sweeper("tiny", "--out", out, "--as", kind)
    assert result.exit_code == 0, result.output
    splits = load_splits(DataConfig(train=(str(out),)), tmp_path, learns)
    rows = [*splits.train, *splits.validation, *splits.test]
    assert len(rows) == {"completions": 30, "pairs": 30, "labelled": 60}[kind]
    again = sweeper("tiny", "--out", out)
    assert again.exit_code == 2 and "already exists" in again.stderr


def test_what_there_is_not_is_said(given, tmp_path):
    assert "no adapter 'other'" in sweeper("other").stderr
    assert "must end in .jsonl" in sweeper("tiny", "--out", tmp_path / "x.csv").stderr
