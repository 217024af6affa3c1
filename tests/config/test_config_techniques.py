"""What the techniques of a study file ask for, and what is refused with its line."""

from __future__ import annotations

import pytest

from sweeper.config.loader import load_study
from sweeper.config.parameters import Hyperparameters
from sweeper.config.trial import TrialSpec
from sweeper.errors import StudyFileError

HEAD = "name: s\nmodel: m\ndata: {train: t.jsonl}\n"
GRPO = HEAD + "technique: {kind: grpo, rewards: [{kind: exact_match}]}\n"


def load(tmp_path, text):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    return load_study(path).config


def test_a_policy_decides_on_its_rewards_where_the_study_names_nothing(tmp_path):
    config = load(tmp_path, GRPO)
    assert config.evaluation.metric == "mean_reward"
    assert config.evaluation.metrics == ("mean_reward", "kl")
    assert config.evaluation.direction == "maximize"


@pytest.mark.parametrize(
    ("text", "field", "said"),
    [
        (HEAD + "technique: {kind: grpo}\n", "technique.rewards", "is required"),
        (HEAD + "technique: {kind: grpo, rewards: []}\n", "technique.rewards", "at least one reward"),
        (
            HEAD + "technique: {kind: grpo, rewards: [{kind: exact_match, weight: 0}]}\n",
            "technique.rewards",
            "every reward has weight 0, so nothing can be learned",
        ),
        (
            HEAD + "technique: {kind: dpo}\nevaluation: {metric: preference_accuracy, goal: 90}\n",
            "evaluation",
            "preference_accuracy is from 0 to 1 (0.9 is 90 %); found 90",
        ),
        (GRPO + "evaluation: {metric: win_rate, goal: 90}\n", "evaluation", "win_rate is from 0 to 1"),
        (HEAD + "technique: {kind: grpo, rewards: [{kind: exakt_match}]}\n", "technique.rewards.0", "exact_match"),
        (GRPO + "search: {space: {num_generations: 1}}\n", "search.space.num_generations", "at least 2"),
        (GRPO + "search: {space: {num_iterations: 2}}\n", "search.space.num_iterations", "cannot be searched"),
        (GRPO + "search: {space: {use_vllm: true}}\n", "search.space.use_vllm", "cannot be searched"),
        (GRPO + "evaluation: {metric: eval_loss}\n", "", "eval_loss does not apply to grpo"),
        (HEAD + "technique: reward\nevaluation: {objectives: [latency]}\n", "", "generate none"),
    ],
)
def test_what_cannot_be_is_refused_with_its_line(tmp_path, text, field, said):
    with pytest.raises(StudyFileError) as caught:
        load(tmp_path, text)
    (fault,) = caught.value.faults
    assert fault.field == field
    assert said in f"{fault.message} {fault.hint}"
    assert fault.line is not None


def test_a_weight_of_0_beside_others_and_a_goal_of_what_has_no_bounds_are_fine(tmp_path):
    rewards = "rewards: [{kind: exact_match, weight: 0}, {kind: length, target: 3, weight: -2}]"
    config = load(tmp_path, HEAD + f"technique: {{kind: grpo, {rewards}}}\nevaluation: {{goal: 90}}\n")
    assert [reward.weight for reward in config.technique.rewards] == [0.0, -2.0]
    assert config.evaluation.goal == 90


@pytest.mark.parametrize(
    ("kind", "trl", "rows"), [("grpo", {}, 32), ("rloo", {}, 8), ("grpo", {"num_generations": 3}, 12), ("dpo", {}, 4)]
)
def test_a_step_of_a_policy_takes_every_answer_to_every_prompt(tmp_path, kind, trl, rows):
    rewards = {"rewards": [{"kind": "exact_match"}]} if kind != "dpo" else {}
    spec = TrialSpec.model_validate(
        {
            "study": "s",
            "number": 0,
            "seed": 0,
            "model": "m",
            "model_folder": tmp_path,
            "adapter": {"kind": "lora"},
            "train": tmp_path,
            "validation": tmp_path,
            "folder": tmp_path,
            "device": "cpu",
            "evaluation": {},
            "technique": {"kind": kind, **rewards},
            "hyperparameters": Hyperparameters(learning_rate=1, batch_size=4, epochs=1, trl=trl),
        }
    )
    assert spec.rows_per_step == rows
