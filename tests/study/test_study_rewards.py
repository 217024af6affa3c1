"""Reward models and policies from a study file to a registered winner and its exports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import yaml

from sweeper.check.report import check_study
from sweeper.config.trial import Outcome, TrialSpec
from sweeper.errors import DataError, RegistryError, RewardError, StudyFileError, StudyInterrupted
from sweeper.executors.listener import Listener
from sweeper.executors.stop_request import StopRequest
from sweeper.export import export
from sweeper.paths import Home
from sweeper.registry import Registry
from sweeper.registry.provenance import export_source
from sweeper.store import Database
from sweeper.study.run import resume_study, run_study

REWARD_MODEL = {
    "name": "ranker",
    "shape": "same_preference",
    "technique": {"kind": "reward", "max_length": 64},
    "search": {
        "space": {"learning_rate": [1e-2, 2e-2], "batch_size": 8, "epochs": 3, "lora_rank": 4},
        "n_trials": 2,
        "confirm": 0,
    },
    "evaluation": {
        "metric": "preference_accuracy",
        "metrics": ["preference_margin", "preference_accuracy"],
        "candidates": 1,
    },
}


def policy(*rewards, kind="grpo", **more):
    """A study of a policy that answers with one token, the same for every prompt."""
    return {
        "shape": "same_answer",
        "technique": {"kind": kind, "max_length": 64, "max_completion_length": 1, "rewards": list(rewards)},
        "search": {
            "space": {"learning_rate": 2e-2, "num_generations": 32, "batch_size": 8, "epochs": 3, "lora_rank": [2, 4]},
            "n_trials": 2,
            "confirm": 0,
        },
        "evaluation": {
            "metric": "mean_reward",
            "metrics": ["mean_reward", "win_rate", "kl"],
            "max_new_tokens": 1,
            "candidates": 1,
        },
        **more,
    }


def exported(home, name, format, out):
    with Database.open(home.database, create=False) as database:
        return export(export_source(home, database, Registry(home, database).get(name)), format, out)


def values(home, name="tiny"):
    with Database.open(home.database, create=False) as database:
        return [trial.value for trial in database.trials.all(name) if trial.outcome is Outcome.COMPLETE]


@pytest.mark.parametrize("adapter", [pytest.param("lora", marks=pytest.mark.long), "qlora"])
def test_a_reward_model_is_registered_exported_and_rewards_a_policy(study_file, tmp_path, adapter):
    home = Home.current()
    result = run_study(study_file(**REWARD_MODEL, adapter={"kind": adapter}))
    assert result.registered is not None
    assert result.candidates[result.trial].metrics["preference_accuracy"].value == 1.0
    loaded = exported(home, "ranker", "adapter", tmp_path / "adapter")
    assert any("equal to the registered ones" in note for note in loaded.notes)
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert "AutoModelForSequenceClassification.from_pretrained" in card and "num_labels=1" in card
    merged = exported(home, "ranker", "merged", tmp_path / "merged")
    assert any("comparing scores" in note for note in merged.notes)
    same_scores(home, tmp_path / "merged")

    study = study_file(**policy({"kind": "adapter", "name": "ranker"}))
    result = run_study(study)
    after, before = result.candidates[result.trial].metrics, result.base.metrics
    assert after["mean_reward"].value > before["mean_reward"].value + 0.5
    assert after["win_rate"].value > 0.6
    spec = TrialSpec.model_validate_json(home.study("tiny").trial(result.trial).spec.read_text())
    assert spec.reward_sources.models[0].version == 1


@pytest.mark.long
def test_a_reward_model_trained_as_a_whole_rewards_a_policy(study_file):
    home = Home.current()
    search = {**REWARD_MODEL["search"], "space": {"learning_rate": 1e-3, "batch_size": 8, "epochs": 3}}
    result = run_study(study_file(**{**REWARD_MODEL, "search": search}, adapter={"kind": "full"}))
    assert result.candidates[result.trial].metrics["preference_accuracy"].value == 1.0
    with Database.open(home.database, create=False) as database:
        same_scores(home, Registry(home, database).get("ranker").folder)
    result = run_study(study_file(**policy({"kind": "adapter", "name": "ranker"})))
    after, before = result.candidates[result.trial].metrics, result.base.metrics
    assert after["mean_reward"].value > before["mean_reward"].value


def same_scores(home, folder):
    """The merged model gives the score that the reward model in the registry gives."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from sweeper.config.rewards import AdapterReward
    from sweeper.registry.reward_models import reward_sources
    from sweeper.training.rewards import build_rewards

    reward = AdapterReward(name="ranker")
    (function,) = build_rewards([reward], reward_sources([reward], home.folder, home), "cpu")
    rows = [tiny.row("same_preference", number) for number in (7, 512)]
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for name in ("chosen", "rejected"):
        given = function([row["prompt"] for row in rows], [row[name] for row in rows])
        texts = [row["prompt"] + row[name] + tokenizer.eos_token for row in rows]
        with torch.no_grad():
            plain = [float(model(**tokenizer(text, return_tensors="pt")).logits[0, 0]) for text in texts]
        assert given == pytest.approx(plain, abs=0.02)


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_a_policy_beats_its_base_and_everything_of_it_is_kept(study_file, kind):
    result = run_study(study_file(**policy({"kind": "exact_match"}, kind=kind)))
    scores, base = result.candidates[result.trial], result.base
    assert (base.metrics["mean_reward"].value, scores.metrics["mean_reward"].value) == (0.0, 1.0)
    assert (base.metrics["win_rate"].value, scores.metrics["win_rate"].value) == (0.5, 1.0)
    assert base.metrics["kl"].value == 0.0 < scores.metrics["kl"].value
    assert set(scores.predictions) == {"one"}
    assert result.registered is not None
    with Database.open(Home.current().database, create=False) as database:
        kept = {point.name for point in database.metrics.get("tiny", number=result.trial)}
        examples = database.evaluations.examples("tiny", result.trial, "test")
    assert {"loss", "train_reward", "mean_reward", "kl"} <= kept
    assert {(example.reference, example.generated, example.scores["mean_reward"]) for example in examples} == {
        ("one", "one", 1.0)
    }


class Stopping(Listener):
    def __init__(self, number, step):
        self.at, self.stop = (number, step), StopRequest()

    def trial_reported(self, number, step, metrics):
        if (number, step) == self.at:
            self.stop.set()


@pytest.mark.long
def test_stopped_and_resumed_it_is_the_same_study(study_file, monkeypatch, tmp_path):
    (tmp_path / "earning.py").write_text(
        "def short(completions, **_):\n    return [-len(text) for text in completions]\n"
    )
    study = policy(
        {"kind": "exact_match"}, {"kind": "function", "function": "earning:short", "weight": 0.01}, kind="rloo"
    )
    run_study(study_file(**study))
    whole = values(Home.current())
    monkeypatch.setenv("SWEEPER_HOME", str(tmp_path / "other"))
    listener = Stopping(0, 3)  # where an evaluation is due
    with pytest.raises(StudyInterrupted):
        run_study(study_file(**study), listener=listener, stop=listener.stop)
    assert values(Home.current()) == []
    monkeypatch.chdir("/")  # the module is found again, wherever the study is resumed from
    resume_study("tiny")
    assert values(Home.current()) == pytest.approx(whole)


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        ({"kind": "function", "function": "nowhere:good"}, "there is no module 'nowhere'"),
        ({"kind": "function", "function": "json:good"}, "defines no good"),
        ({"kind": "function", "function": "json:dumps"}, "needs obj"),
        ({"kind": "function", "function": "without:columns"}, "takes no reference; it is called with prompts"),
    ],
)
def test_a_function_that_cannot_be_used_is_a_fault_of_the_file(study_file, tmp_path, reward, said):
    (tmp_path / "without.py").write_text("def columns(prompts, completions): ...\n")
    study = study_file(**policy({"kind": "exact_match"}, reward))
    with pytest.raises(StudyFileError, match=said) as caught:
        check_study(study)
    assert caught.value.faults[0].field == "technique.rewards.1.function"
    assert caught.value.faults[0].line is not None
    with pytest.raises(StudyFileError, match=said):
        run_study(study)


def test_a_reward_model_must_be_one(study_file):
    unknown = study_file(**policy({"kind": "adapter", "name": "nobody"}))
    with pytest.raises(RegistryError, match="nobody"):
        check_study(unknown)
    run_study(study_file("plain", search={"n_trials": 1, "confirm": 0}), force=True)
    with pytest.raises(RegistryError, match="no adapter 'nobody' is registered"):
        check_study(unknown)
    with pytest.raises(RegistryError, match="was trained with sft and gives no rewards"):
        check_study(study_file(**policy({"kind": "adapter", "name": "plain"})))
    with pytest.raises(RegistryError, match="'plain' has no version 7"):
        check_study(study_file(**policy({"kind": "adapter", "name": "plain", "version": 7})))


def test_exact_match_needs_references(study_file, tmp_path):
    rows = [{"prompt": f"write {number}:"} for number in range(40)]
    data = {"train": str(tiny.write_rows(tmp_path / "bare.jsonl", rows)), "validation": None, "test": None}
    with pytest.raises(DataError, match="add a column reference"):
        check_study(study_file(**policy({"kind": "exact_match"}, data=data)))
    report = check_study(study_file(**policy({"kind": "regex", "pattern": "x"}, data=data)))
    assert report.figures["memory"]["micro_batch"] == 8 * 32


def test_a_function_that_fails_ends_the_study_and_says_so(study_file, tmp_path):
    (tmp_path / "failing.py").write_text("def bad(completions, **_):\n    raise KeyError('what')\n")
    with pytest.raises(RewardError, match="failing:bad failed: KeyError: 'what'"):
        run_study(study_file(**policy({"kind": "function", "function": "failing:bad"})))


def test_the_exported_rewards_are_those_of_the_study(study_file, tmp_path):
    import runpy

    run_study(study_file(**policy({"kind": "exact_match"}, {"kind": "regex", "pattern": "o.*", "weight": 0.5})))
    exported(Home.current(), "tiny", "trl", tmp_path / "out")
    found = yaml.safe_load((tmp_path / "out" / "trl.yaml").read_text())
    assert found["reward_funcs"] == ["study_rewards.exact_match", "study_rewards.regex"]
    assert found["reward_weights"] == [1.0, 0.5]
    assert found["num_generations"] == 32
    module = runpy.run_path(str(Path(tmp_path / "out" / "study_rewards.py")))
    assert module["exact_match"](["p", "p"], ["one", "two"], reference=["one", "one"], trainer_state=None) == [1.0, 0.0]
    assert module["regex"](["p", "p"], ["one", "two"]) == [1.0, 0.0]
    assert json.loads((tmp_path / "out" / "study_rewards.json").read_text())["device"] == "cpu"
