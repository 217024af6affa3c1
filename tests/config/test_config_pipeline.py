"""A study of three stages: what they share, what each says itself, and faults with their lines."""

from __future__ import annotations

import pytest

from sweeper.config.loader import PipelineFile, load_study
from sweeper.config.pipeline import name_to_resume, pipeline_of
from sweeper.errors import StudyFileError
from sweeper.files.atomic import write_json
from sweeper.paths import Home

GOOD = """\
name: helpful
model: smollm2-135m
technique: rlhf
adapter: {kind: lora}
seed: 7
stages:
  sft:
    data: {train: answers.jsonl}
    search: {n_trials: 3}
  reward:
    data: {train: rankings.jsonl}
    seed: 9
  policy:
    data: {train: prompts.jsonl}
    technique: {kind: rloo, max_completion_length: 32}
"""


@pytest.fixture
def load(tmp_path):
    def from_text(text):
        path = tmp_path / "study.yaml"
        path.write_text(text)
        return load_study(path)

    return from_text


def test_each_stage_is_a_study_of_its_own(load):
    file = load(GOOD)
    assert isinstance(file, PipelineFile) and file.name == "helpful"
    sft, reward, policy = (study.config for study in file.stages.values())
    assert [study.name for study in (sft, reward, policy)] == ["helpful-sft", "helpful-reward", "helpful-policy"]
    assert [study.technique.kind for study in (sft, reward, policy)] == ["sft", "reward", "rloo"]
    assert {study.adapter.kind for study in (sft, reward, policy)} == {"lora"}
    assert [study.seed for study in (sft, reward, policy)] == [7, 9, 7]
    assert (sft.search.n_trials, reward.search.n_trials) == (3, 20)


def test_the_policy_is_rewarded_by_the_reward_stage_and_compared_with_sft(load):
    policy = load(GOOD).stages["policy"].config
    (reward,) = policy.technique.rewards
    assert (reward.kind, reward.name) == ("adapter", "helpful-reward")
    assert policy.evaluation.metrics == ("mean_reward", "win_rate", "kl")


def test_a_policy_may_name_rewards_of_its_own(load):
    rewards = "rewards: [exact_match, {kind: length, target: 9}]"
    policy = load(GOOD.replace("max_completion_length: 32", rewards)).stages["policy"].config
    assert [reward.kind for reward in policy.technique.rewards] == ["exact_match", "length"]


@pytest.mark.parametrize(
    ("change", "field", "line", "message"),
    [
        (("seed: 7", "data: {train: a.jsonl}"), "data", 5, "unknown key of an rlhf study"),
        (("name: helpful", "name: 5"), "name", 1, "must be text; found 5"),
        (("name: helpful", "name: ../up"), "name", 1, "found '../up'"),
        (("name: helpful", f"name: {'n' * 95}"), "name", 1, "1 to 100 letters"),
        (
            ("technique: rlhf", "technique: {kind: rlhf, max_length: 3}"),
            "technique.max_length",
            3,
            "belongs to a stage",
        ),
        (("model: smollm2-135m", "model: {choice: [smollm2-135m]}"), "model.choice", 2, "the stages share one model"),
        (
            ("{kind: lora}", "prompt"),
            "adapter",
            4,
            "prompt cannot be merged into the model that later stages start",
        ),
        (("search: {n_trials: 3}", "adapter: {choice: [lora, prefix]}"), "stages.sft.adapter", 9, "prefix cannot be"),
        (
            ("    technique: {kind: rloo, ", "    evaluation: [1]\n    technique: {kind: rloo, "),
            "stages.policy.evaluation",
            15,
            "mapping",
        ),
        (("  reward:\n", "  ranking:\n"), "stages.reward", 6, "is required"),
        (("    seed: 9", "    model: other"), "stages.reward.model", 12, "the stages share one model"),
        (("kind: rloo", "kind: dpo"), "stages.policy.technique", 15, "must be one of grpo, rloo, gmpo in stage policy"),
        (("n_trials: 3", "n_trials: 0"), "stages.sft.search.n_trials", 9, "greater than or equal to 1"),
        (("{train: rankings.jsonl}", "{}"), "stages.reward.data.train", 11, "is required"),
        (("kind: lora", "kind: lroa"), "adapter", 4, "must be one of"),
        (("name: helpful\n", ""), "name", 1, "is required"),
        (("name: helpful", "name: help ful"), "name", 1, "a name has 1 to 100"),
    ],
)
def test_a_fault_names_the_place_in_the_file(load, change, field, line, message):
    with pytest.raises(StudyFileError) as caught:
        load(GOOD.replace(*change))
    found = {fault.field: fault for fault in caught.value.faults}
    assert field in found, caught.value
    assert message in found[field].message
    assert found[field].line == line


def test_a_shared_fault_is_told_once(load):
    with pytest.raises(StudyFileError) as caught:
        load(GOOD.replace("kind: lora", "kind: lroa"))
    assert len(caught.value.faults) == 1


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("p-sft", "p"),
        ("p-policy", "p"),
        ("p", None),
        ("p-sft-sft", None),  # of a study p-sft, which has no stages
        ("p-other", None),
        ("q-sft", None),
        ("-sft", None),
    ],
)
def test_a_stage_is_known_by_the_folder_of_its_whole(tmp_path, name, whole):
    home = Home(tmp_path)
    write_json(home.study("p").pipeline, {})
    home.study("q").folder.mkdir()
    assert pipeline_of(home.study(name)) == whole
    assert name_to_resume(home.study(name)) == (whole or name)
