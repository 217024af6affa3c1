"""A study of three stages on the tiny model: SFT, a reward model, and a policy optimised against it."""

from __future__ import annotations

import json
from contextlib import nullcontext

import pytest
from test_study_run import Stopping
from typer.testing import CliRunner

from sweeper.cli.main import app
from sweeper.config.loader import load_study
from sweeper.config.trial import Outcome
from sweeper.errors import DataError, StudyInterrupted, StudyStateError
from sweeper.paths import Home
from sweeper.registry import Registry
from sweeper.store import Database
from sweeper.study.pipeline import resume_pipeline, run_pipeline
from sweeper.study.run import run_study

SPACE = {"batch_size": 8, "epochs": 2, "lora_rank": 4}
EVALUATION = {"points": 2, "candidates": 1}


@pytest.fixture
def pipeline_file(tiny_model, tiny_data, tmp_path):
    """Return a writer of the study file; mappings replace parts of its stages key by key."""

    margin = "preference_margin"

    def write(name="human", **stages):
        study = {
            "name": name,
            "model": str(tiny_model),
            "technique": "rlhf",
            "adapter": {"kind": "lora"},
            "executor": {"device": "cpu"},
            "seed": 3,
            "stages": {
                "sft": {
                    "data": tiny_data("same_answer"),
                    "technique": {"kind": "sft", "max_length": 64},
                    "search": {"n_trials": 2, "confirm": 0, "space": {"learning_rate": [1e-2, 2e-2], **SPACE}},
                    "evaluation": {**EVALUATION, "metrics": ["perplexity"]},
                },
                "reward": {
                    "data": tiny_data("same_preference"),
                    "technique": {"kind": "reward", "max_length": 64},
                    "search": {"n_trials": 2, "confirm": 0, "space": {"learning_rate": [1e-2, 2e-2], **SPACE}},
                    "evaluation": {**EVALUATION, "metric": margin, "metrics": [margin]},
                },
                "policy": {
                    "data": tiny_data("same_answer"),
                    "technique": {"kind": "rloo", "max_length": 64, "max_completion_length": 2},
                    "search": {
                        "n_trials": 1,
                        "confirm": 0,
                        "space": {"learning_rate": 1e-2, "num_generations": 4, **SPACE},
                    },
                    "evaluation": {**EVALUATION, "max_new_tokens": 2},
                },
            },
        }
        for stage, parts in stages.items():
            study["stages"][stage] |= parts
        path = tmp_path / f"{name}.yaml"
        path.write_text(json.dumps(study, indent=1), encoding="utf-8")  # JSON is YAML, and has no anchors
        return load_study(path)

    return write


def command(*arguments, code=0):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    return result


def versions():
    with Database.open(Home.current().database, create=False) as database:
        return {entry.name: entry for entry in Registry(Home.current(), database).all()}


def test_stopped_in_a_stage_it_goes_on_there_and_its_lineage_is_the_chain(pipeline_file):
    file = pipeline_file()
    listener = Stopping(number=0, step=3)
    with pytest.raises(StudyInterrupted):
        run_pipeline(
            file,
            watch=lambda config, done: nullcontext(listener if config.name == "human-reward" else Stopping()),
            stop=listener.stop,
            force=True,
        )
    assert set(versions()) == {"human-sft"}
    stages = []

    def watch(config, done):
        stages.append((config.name, done))
        return nullcontext(Stopping())

    verdict = resume_pipeline("human", watch=watch, force=True)
    assert stages == [("human-sft", 2), ("human-reward", 0), ("human-policy", 0)]
    found = versions()
    assert {name: entry.version for name, entry in found.items()} == {
        "human-sft": 1,
        "human-reward": 1,
        "human-policy": 1,
    }
    assert verdict.registered == found["human-policy"]
    assert found["human-reward"].lineage.base_model == "adapter:human-sft@1"
    assert found["human-policy"].lineage.built_on == ("human-sft@1", "human-reward@1")
    with Database.open(Home.current().database, create=False) as database:
        assert [trial.outcome for trial in database.trials.all("human-sft")].count(Outcome.COMPLETE) >= 1
        assert len(database.trials.all("human-sft")) == 2

    shown = command("adapters", "show", "human-policy").stdout
    assert "human-sft@1" in shown and "human-reward@1" in shown
    status = command("status", "human").stdout
    assert all(f"human-{stage}" in status for stage in ("sft", "reward", "policy"))
    best = json.loads(command("best", "human", "--json").stdout)
    assert best["study"] == "human-policy"
    again = resume_pipeline("human", force=True)
    assert again.registered == verdict.registered
    assert len(versions()) == 3


def test_a_stage_that_found_nothing_better_ends_it_and_force_goes_on(pipeline_file):
    hopeless = {"n_trials": 1, "confirm": 0, "space": {"learning_rate": 1e-9, "batch_size": 8, "epochs": 1}}
    file = pipeline_file(sft={"search": hopeless})
    with pytest.raises(StudyStateError, match=r"stage sft found nothing better .* `sweeper resume human --force`"):
        run_pipeline(file)
    assert versions() == {}
    assert resume_pipeline("human", force=True).registered.name == "human-policy"


@pytest.mark.long
def test_a_policy_that_earns_no_more_ends_like_any_study_without_a_winner(pipeline_file):
    timid = {"learning_rate": 1e-9, "num_generations": 4, "batch_size": 8, "epochs": 1, "lora_rank": 4}
    path = pipeline_file(policy={"search": {"n_trials": 1, "confirm": 0, "space": timid}}).path
    told = json.loads(command("run", path, "--json").stdout)
    assert (told["study"], told["registered"]) == ("human-policy", None)
    assert set(versions()) == {"human-sft", "human-reward"}


@pytest.mark.long
def test_under_another_name_it_has_its_own_reward_model(pipeline_file):
    path = pipeline_file().path
    result = command("run", path, "--name", "other", "--force", "--json")
    assert json.loads(result.stdout)["study"] == "other-policy"
    assert versions()["other-policy"].lineage.built_on == ("other-sft@1", "other-reward@1")
    refused = command("run", path, "--name", "other", code=2)
    assert "`sweeper resume other` goes on with it" in refused.stderr


def test_it_takes_up_no_study_that_is_not_its_own(pipeline_file, study_file):
    run_study(study_file("human-sft", search={"n_trials": 1}))
    with pytest.raises(StudyStateError, match="study 'human-sft', as a stage of 'human' would be called"):
        run_pipeline(pipeline_file())
    Home.current().study("whole").pipeline.parent.mkdir(parents=True)
    Home.current().study("whole").pipeline.write_text("{}")
    with pytest.raises(StudyStateError, match="study 'whole' is in"):
        run_study(study_file("whole"))


def test_data_of_the_last_stage_are_at_fault_before_the_first_begins(pipeline_file, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    file = pipeline_file(policy={"data": {"train": str(tmp_path / "empty.jsonl")}})
    with pytest.raises(DataError, match=r"empty\.jsonl"):
        run_pipeline(file)
    assert not Home.current().study("human").folder.exists()
