from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from sweeper.cli.main import app
from sweeper.config.adapter import LoRA
from sweeper.config.evaluation import EvaluationConfig
from sweeper.config.model import ModelConfig
from sweeper.config.parameters import Hyperparameters
from sweeper.config.technique import SFT
from sweeper.config.trial import Outcome, TrialResult, TrialSpec
from sweeper.paths import Home
from sweeper.store import Database, Evaluation, Example, ScoreRecord, TrialKind

SCORES = {None: [0.0] * 16 + [1.0] * 4, 0: [1.0] * 17 + [0.0] * 3, 1: [1.0] * 10 + [0.0] * 10}


@pytest.fixture
def filled(tmp_path):
    with Database.open(Home.current().database, create=True) as database:
        database.studies.create(
            "itn",
            file_name="itn.yaml",
            file_text="",
            config={"evaluation": {"metric": "eval_loss", "metrics": ["exact_match"]}},
            space={"preset": "lora"},
            seed=1,
            packages={},
            data_sha256={"test": "a" * 64},
            base_model="m",
            base_model_fingerprint="f" * 64,
        )
        at = datetime.now(UTC).isoformat()
        for number in (0, 1):
            spec = TrialSpec(
                study="itn",
                number=number,
                seed=number,
                model=ModelConfig(name="m"),
                model_folder=tmp_path,
                technique=SFT(),
                adapter=LoRA(),
                train=tmp_path,
                validation=tmp_path,
                hyperparameters=Hyperparameters(learning_rate=1e-3 * (1 + number), batch_size=8, epochs=1),
                evaluation=EvaluationConfig(),
                device="cpu",
                folder=tmp_path,
            )
            database.trials.start(spec, TrialKind.SAMPLED, total_steps=10)
            database.metrics.add("itn", [(number, step, {"eval_loss": 3 / step}) for step in (5, 10)])
            ended = {"steps": 10, "total_steps": 10, "started_at": at, "finished_at": at}
            done = TrialResult(number=number, outcome=Outcome.COMPLETE, value=0.3, **ended)
            database.trials.finish("itn", done)
        for number, values in SCORES.items():
            mean = sum(values) / len(values)
            examples = [Example(n, f"p {n}", "r", "<b>g", {"exact_match": v}) for n, v in enumerate(values)]
            scored = Evaluation(number, "test", (ScoreRecord("exact_match", mean, mean - 0.1, mean + 0.1),))
            database.evaluations.add("itn", scored, examples)


def compare(*arguments):
    return CliRunner().invoke(app, ["compare", *arguments])


def test_the_verdict_the_scores_and_what_differs(filled):
    done = compare("itn:0", "itn:1", "itn:base", "--reference", "itn:base")
    assert done.exit_code == 0, done.output
    assert "itn:0 is significantly better than itn:base on exact_match" in done.output
    assert "+0.650" in done.output and "learning_rate" in done.output and "Holm" in done.output


def test_plain_data(filled):
    found = json.loads(compare("itn:0", "itn:1", "--json").stdout)
    assert found["reference"] == "itn:0" and found["metric"] == "exact_match"
    against = found["against_reference"]["exact_match"]["itn:1"]
    assert against["difference"]["value"] == pytest.approx(-0.35) and against["verdict"] == "worse"
    assert found["examples"]["itn:1"]["losses"] == [10, 11, 12, 13, 14, 15, 16]
    assert found["differs"]["learning_rate"] == {"itn:0": 0.001, "itn:1": 0.002}


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_a_report_is_written(filled, tmp_path, name):
    done = compare("itn:0", "itn:base", "--out", str(tmp_path / name))
    assert done.exit_code == 0 and "report written" in done.output
    text = (tmp_path / name).read_text(encoding="utf-8")
    assert (
        "Learning curves: eval" in text.replace("\\", "")
        and "f" * 64 in text
        and "<b>g" not in text
        and "&lt;b&gt;g" in text
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["itn:0"], "2 to 8 subjects; found 1"),
        (["itn:0", "itn:0"], "named twice"),
        (["itn:0", "itn"], "is not a valid name"),
        (["itn:0", "itm:1"], "did you mean 'itn'"),
        (["itn:0", "itn:1", "--reference", "itn:5"], "not among the subjects"),
        (["itn:0", "itn:1", "--metric", "bleu"], "no subject was scored with"),
        (["itn:0", "itn:1", "--out", "report.pdf"], "must end in .md or .html"),
        (["itn:0", "quick@1"], "no version 1 of an adapter 'quick'"),
    ],
)
def test_what_cannot_be_compared_is_said_and_nothing_is_written(filled, arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = compare(*arguments)
    assert done.exit_code == 2 and said in " ".join(done.output.split())
    assert not list(tmp_path.glob("report*"))
