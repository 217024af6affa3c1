"""``sweeper data``: what it counts, and that it starts without torch."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from sweeper.cli.main import app


def sweeper(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def test_a_study_has_a_column_a_split(begin):
    begin(technique={"max_length": 16})
    result = sweeper("data", "tiny")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["rows", "24", "8", "10"] in lines
    assert ["also", "in", "train", "0", "0"] in lines


def test_json_has_the_numbers(begin):
    begin(shape="messages", technique={"max_length": 16})
    found = json.loads(sweeper("data", "tiny", "--json").stdout)
    assert (found["study"], found["technique"], found["max_length"]) == ("tiny", "sft", 16)
    train = found["splits"]["train"]
    assert (train["rows"], train["rows_counted"], train["rows_cut"]) == (24, 24, 24)
    assert train["rows_dropped"] == 24 and train["lost_loss_tokens"] == train["loss_tokens"] > 0
    assert train["total"]["longest"] >= train["prompt"]["longest"] > 0


def test_it_does_not_import_torch(begin):
    begin()
    code = (
        "import sys; from sweeper.cli.main import app\n"
        "app(['data', 'tiny'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"), [(("tinny",), "did you mean 'tiny'"), (("tiny", "--model", "x"), "no model 'x'")]
)
def test_what_is_not_there_is_refused(begin, arguments, says):
    begin()
    result = sweeper("data", *arguments)
    assert result.exit_code == 2 and says in result.stderr


def test_a_study_whose_data_are_gone_says_so(begin):
    begin().data.test.unlink()
    result = sweeper("data", "tiny")
    assert result.exit_code == 2 and "has no prepared data in this home" in result.stderr
