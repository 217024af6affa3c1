"""``sweeper init``: study files that pass ``sweeper check``, from any of the usual data."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sweeper.cli.main import app
from sweeper.config.loader import load_study

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("SWEEPER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SWEEPER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def sweeper(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def write(path: Path, records: list[dict[str, object]]) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def pairs(answer: str = "{n}") -> list[dict[str, object]]:
    return [{"prompt": f"say {n} =>", "completion": " " + answer.replace("{n}", str(n))} for n in range(100)]


def test_it_passes_the_check(here):
    write(here / "numbers.jsonl", pairs())
    result = sweeper("init", "--data", "numbers.jsonl", "--yes")
    assert result.exit_code == 0, result.output
    assert "sweeper check study.yaml" in result.stdout
    config = load_study(here / "study.yaml").config
    assert config.name == "numbers"
    assert config.model.name == "smollm2-135m"
    assert config.data.train == ("numbers.jsonl",)
    assert config.evaluation.metrics == ("exact_match", "token_f1")
    checked = sweeper("check", "study.yaml")
    assert checked.exit_code == 0, checked.output


def test_flags_and_paths_from_another_folder(here):
    write(here / "data" / "train.jsonl", pairs())
    write(here / "data" / "test.jsonl", [{"prompt": "x =>", "completion": " y"}])
    result = sweeper(
        *("init", "--data", "data/train.jsonl", "--test", "data/test.jsonl", "--metric", "chrf", "--trials", 7),
        *("--out", "studies/one.yaml", "--name", "mine"),
    )
    assert result.exit_code == 0, result.output
    config = load_study(here / "studies" / "one.yaml").config
    assert config.data.train == ("../data/train.jsonl",)
    assert config.data.test == ("../data/test.jsonl",)
    assert config.data.validation is None
    assert config.evaluation.metrics == ("chrf", "exact_match", "token_f1")
    assert (config.name, config.search.n_trials) == ("mine", 7)
    assert sweeper("check", "studies/one.yaml").exit_code == 0


@pytest.mark.parametrize(
    "records, metrics",
    [
        (pairs('{"a": {n}}'), ("field_match", "json_validity", "exact_match")),
        (pairs("a long answer " * 20 + "{n}"), ("rougeL", "chrf", "token_f1")),
        ([{"text": f"a text {n}"} for n in range(100)], ("perplexity",)),
        (
            [
                {"messages": [{"role": "user", "content": str(n)}, {"role": "assistant", "content": str(n)}]}
                for n in range(100)
            ],
            ("exact_match", "token_f1"),
        ),
        ([{"instruction": f"do {n}", "input": "", "output": str(n)} for n in range(100)], ("exact_match", "token_f1")),
    ],
)
def test_metrics_fit_the_answers(here, records, metrics):
    write(here / "d.jsonl", records)
    assert sweeper("init", "--data", "d.jsonl").exit_code == 0
    assert load_study(here / "study.yaml").config.evaluation.metrics == metrics
    assert sweeper("check", "study.yaml").exit_code == 0


def test_other_columns(here):
    write(here / "d.jsonl", [{"question": f"q {n}", "reply": str(n)} for n in range(100)])
    refused = sweeper("init", "--data", "d.jsonl")
    assert refused.exit_code == 2
    assert "found 'question', 'reply'" in refused.stderr
    assert not (here / "study.yaml").exists()
    result = sweeper("init", "--data", "d.jsonl", "--column", "prompt=question", "--column", "completion=reply")
    assert result.exit_code == 0, result.output
    assert load_study(here / "study.yaml").config.data.columns == {"prompt": "question", "completion": "reply"}


def test_names_that_yaml_would_misread(here):
    for name in ("yes: no #1.jsonl", "12.jsonl", "größe [x] {y}.jsonl", 'it\'s "q".jsonl'):
        write(here / name, pairs())
        result = sweeper("init", "--data", name, "--force")
        assert result.exit_code == 0, (name, result.output)
        assert load_study(here / "study.yaml").config.data.train == (name,)


def test_nothing_is_overwritten_without_force(here):
    write(here / "d.jsonl", pairs())
    (here / "study.yaml").write_text("precious")
    refused = sweeper("init", "--data", "d.jsonl")
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert (here / "study.yaml").read_text() == "precious"
    assert sweeper("init", "--data", "d.jsonl", "--force").exit_code == 0


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((), "--data is missing"),
        (("--data", "nothing.jsonl"), "no such file"),
        (("--data", "d.jsonl", "--metric", "blue"), "must be one of exact_match"),
        (("--data", "d.jsonl", "--column", "prompt"), "NAME=COLUMN"),
        (("--data", "d.jsonl", "--name", "../up"), "--name: a name has"),
        (("--data", "d.jsonl", "--model", "smolm2-135m"), "Did you mean smollm2-135m"),
        (("--data", "few.jsonl"), "split is empty"),
    ],
)
def test_what_is_refused_writes_nothing(here, arguments, words):
    write(here / "d.jsonl", pairs())
    write(here / "few.jsonl", pairs()[:2])
    result = sweeper("init", *arguments)
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert not (here / "study.yaml").exists()


def test_it_asks_on_a_terminal(here):
    write(here / "asked.jsonl", pairs())
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "sweeper", "init"], stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=here
    )
    os.close(theirs)
    os.write(ours, b"asked.jsonl\n\n")
    seen = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # how Linux ends a terminal whose other side is closed
            break
        if not part:
            break
        seen += part
    os.close(ours)
    assert process.wait(timeout=60) == 0, seen
    assert b"Training data" in seen
    assert b"Base model [smollm2-135m]" in seen
    assert load_study(here / "study.yaml").config.name == "asked"
