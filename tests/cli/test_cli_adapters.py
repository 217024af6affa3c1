"""``sweeper adapters``: through the gate on real models, and what people write on versions."""

from __future__ import annotations

import json

import pytest
from judged import weak_and_strong
from typer.testing import CliRunner

from sweeper.cli.main import app
from sweeper.paths import Home
from sweeper.registry import Registry
from sweeper.registry.gate import split_of
from sweeper.registry.merged_base import pinned
from sweeper.store import Database


def call(*arguments):
    """Return what a command says and its exit code."""
    done = CliRunner().invoke(app, ["adapters", *arguments], env={"COLUMNS": "300"})
    return " ".join(done.output.split()), done.exit_code


@pytest.fixture
def registered(study_file):
    weak_and_strong(study_file)
    home = Home.current()
    with Database.open(home.database, create=False) as database:
        yield Registry(home, database)


def test_a_promotion_scores_the_production_version_where_the_gate_needs_it(registered, tmp_path):
    """It was made by another study, from other data, and was never scored on the candidate's test examples."""
    said, code = call("promote", "tiny", "2", "--no-scoring")
    assert code == 2 and "error: tiny v2 stays staging" in said and "sweeper adapters compare tiny 2" in said
    said, code = call("promote", "tiny", "2")
    assert code == 0, said
    assert "scored tiny v1" in said and "tiny v2 is now production" in said
    assert "tiny v2 against tiny v1, exact_match on 10 test examples: gain +" in said
    database = registered._database
    stored = database.evaluations.examples("weak", 0, split_of("strong"))
    (evaluation,) = [e for e in database.evaluations.all("weak") if e.split == split_of("strong")]
    assert len(stored) == 10 and {example.reference for example in stored} == {"one"}
    assert evaluation.scores[0].diff_to_base == 0.0, "an untrained adapter is its base"
    said, code = call("compare", "tiny", "1", "--with", "2")  # the other way round, on the other study's examples
    assert code == 0 and "tiny v1 against tiny v2" in said
    said, code = call("promote", "tiny", "1")
    assert code == 2 and "tiny v1 stays archived: tiny v1 against tiny v2" in said and "--force" in said
    asked = ["export", "tiny", "--version", "1", "--format", "adapter", "--out", str(tmp_path / "exported")]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, "a version that was scored elsewhere too is exported as before"


def test_what_was_done_is_told_and_forced_promotions_are_marked(registered):
    said, code = call("promote", "tiny", "2", "--force", "--reason", "no time")
    assert code == 0 and "forced against the gate" in said
    said, code = call("rollback", "tiny", "--reason", "it swears")
    assert code == 0
    assert "tiny v1 is back in production, replacing tiny v2; it had been forced past the gate" in said
    told = json.loads(CliRunner().invoke(app, ["adapters", "history", "tiny", "--json"]).output)
    assert [(of["kind"], of["version"], of["forced"]) for of in told[:3]] == [
        ("rollback", 1, True),
        ("promote", 2, True),
        ("promote", 1, True),
    ]
    said, _ = call("history", "tiny")
    assert "FORCED" in said and "no time" in said and "ann" in said
    said, code = call("rollback", "tiny")
    assert code == 2 and "no version of 'tiny' was in production before tiny v1" in said


def test_aliases_tags_notes_and_differences(registered, study_file):
    assert call("alias", "tiny", "2", "champion") == ("champion now points to tiny v2", 0)
    assert call("alias", "tiny", "2", "7")[1] == 2
    assert call("tag", "tiny", "2", "german", "short")[1] == 0
    assert call("tag", "tiny", "2", "--remove", "short") == ("tags of tiny v2: german", 0)
    assert call("tag", "tiny", "2")[1] == 2
    assert call("annotate", "tiny", "2", "[red]knows one word[/]")[1] == 0
    said, _ = call("show", "tiny", "2")
    assert "[red]knows one word[/]" in said and "champion" in said and "german" in said
    assert "champion, german" in call("list", "tiny")[0]
    found = json.loads(CliRunner().invoke(app, ["adapters", "diff", "tiny", "1", "2", "--json"]).output)
    told = {(of["part"], of["name"]): (of["old"], of["new"]) for of in found["changes"]}
    assert told["hyperparameters", "learning_rate"] == (1e-9, 2e-2)
    assert ("data", "test") in told and ("base model", "name") not in told and "-name: weak" in found["study_file"]
    said, code = call("diff", "tiny", "1", "2")
    assert code == 0 and "hyperparameters: learning_rate" in said
    for reference, version in (("@champion", 2), ("@production", 1), ("@v1", 1), ("", 2)):
        config = study_file("next", model=f"adapter:tiny{reference}").config
        assert pinned(config, Home.current()).models.keys() == {f"adapter:tiny@{version}"}
    assert call("alias", "tiny", "2", "champion", "--remove")[1] == 0
