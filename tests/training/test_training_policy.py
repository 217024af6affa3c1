"""GRPO, RLOO and GMPO: policies learn from what their answers earn, in as many parts as memory asks for."""

from __future__ import annotations

import pytest
import tiny
from variants import mostly_long

from sweeper.config.adapter import LoRA, QLoRA
from sweeper.config.parameters import steps
from sweeper.config.rewards import ExactMatchReward, LengthReward
from sweeper.config.technique import GMPO, GRPO, RLOO
from sweeper.config.trial import Decision, Outcome
from sweeper.errors import DataError, OutOfMemoryError

KINDS = {"grpo": GRPO, "rloo": RLOO, "gmpo": GMPO}
EXACT = ExactMatchReward()
EARNS = ("mean_reward", "kl", "win_rate")


def policy_spec(model, folder, kind="grpo", *, generations=4, rewards=(EXACT,), shape="same_answer", **more):
    """A policy that answers with one token; the same token is right for every prompt."""
    technique = KINDS[kind](
        max_length=more.pop("max_length", 64), max_completion_length=more.pop("longest", 1), rewards=rewards
    )
    trl = {"num_generations": generations, **more.pop("trl", {})}
    decides = {"metric": "mean_reward", "metrics": EARNS, "max_new_tokens": technique.max_completion_length}
    spec = tiny.trial_spec(model, folder, shape=shape, technique=technique, trl=trl, **{**decides, **more})
    for file in (spec.train, spec.validation):
        tiny.write_rows(file, map(as_prompt, read(file)))
    return spec


def read(file):
    from sweeper.data.splits import read_prepared

    return read_prepared(file)


def as_prompt(row):
    from sweeper.data.layouts import as_prompt

    return as_prompt(row)[0]


def with_prompts(spec, prompt, count=None):
    """Replace the first prompts of the training rows, or all of them."""
    rows = read(spec.train)
    for row in rows[:count]:
        row["prompt"] = prompt
    tiny.write_rows(spec.train, rows)
    return spec


def trained(base, spec, micro_batch=10_000, curve=None):
    from sweeper.evaluation.scorer import Scorer
    from sweeper.training.trial import train_trial

    scorer = Scorer(base, read(spec.validation), spec.evaluation, spec.technique)
    curve = curve or tiny.Curve()
    evaluate = lambda model: {name: metric.value for name, metric in scorer(model).metrics.items()}  # noqa: E731
    return train_trial(spec, base, curve, micro_batch, evaluate), curve


@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_learns_what_is_rewarded(lora_base, tiny_model, tmp_path, kind):
    spec = policy_spec(tiny_model, tmp_path, kind, generations=32, learning_rate=2e-2, epochs=4.0)
    result, curve = trained(lora_base, spec)
    assert result.outcome is Outcome.COMPLETE, result.reason
    assert curve.of("mean_reward")[-1] == 1.0
    assert curve.of("win_rate")[-1] == 1.0
    assert curve.of("kl")[-1] > 0.5
    assert curve.steps[1]["train_reward"] < 0.2 < 0.9 < curve.steps[12]["train_reward"]
    assert ("train_kl" in curve.steps[1]) == (kind == "rloo")  # GRPO's beta is 0: TRL does not look


def test_a_policy_on_a_quantised_base_learns_too(qlora_base, tiny_model, tmp_path):
    spec = policy_spec(
        tiny_model,
        tmp_path,
        generations=8,
        learning_rate=1e-2,
        adapter=QLoRA(),
        longest=4,
        rewards=(LengthReward(target=3),),
    )
    result, curve = trained(qlora_base, spec)
    assert result.outcome is Outcome.COMPLETE, result.reason
    assert curve.of("kl")[-1] > 0
    assert len(curve.steps) == 6


@pytest.mark.parametrize("kind", mostly_long(list(KINDS), "grpo", "gmpo"))
def test_a_step_is_the_same_in_any_number_of_parts(lora_base, tiny_model, tmp_path, kind):
    """Answers of several tokens and of several lengths; every prompt has a part of its group in another pass."""
    curves = [
        trained(
            lora_base,
            policy_spec(
                tiny_model, tmp_path / str(rows), kind, longest=5, rewards=(LengthReward(target=4),), trl={"beta": 0.1}
            ),
            rows,
        )[1]
        for rows in (32, 7)
    ]
    for name in ("loss", "grad_norm"):
        assert curves[1].of(name) == pytest.approx(curves[0].of(name), rel=1e-3, abs=1e-6)
    assert curves[1].of("mean_reward") == pytest.approx(curves[0].of("mean_reward"))


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_as_planned_and_no_prompt_is_left_out(lora_base, tiny_model, tmp_path, kind, monkeypatch):
    from sweeper.training.rewards import RewardFunction

    asked = []
    earn = RewardFunction.__call__
    monkeypatch.setattr(
        RewardFunction, "__call__", lambda self, prompts, *a, **k: asked.append(prompts) or earn(self, prompts, *a, **k)
    )
    spec = policy_spec(tiny_model, tmp_path, kind, rows=21, epochs=1.5)
    from sweeper.training.trial import train_trial

    result = train_trial(spec, lora_base, tiny.Curve(), 64, lambda model: {"mean_reward": 0.0})
    assert result.steps == result.total_steps == steps(21, 8, 1.5) == 5
    assert [len(prompts) for prompts in asked] == [32, 32, 20, 32, 32]
    assert {prompt for prompts in asked[:3] for prompt in prompts} == {row["prompt"] for row in read(spec.train)}
    assert result.tokens > 0


def test_where_memory_runs_out_the_parts_are_halved_and_nothing_else_changes(
    lora_base, tiny_model, tmp_path, monkeypatch
):
    import torch
    from trl import GRPOTrainer

    from sweeper.training.techniques.policy import TRAINERS

    make = lambda name: policy_spec(tiny_model, tmp_path / name, longest=4, rewards=(LengthReward(target=4),))  # noqa: E731
    _, whole = trained(lora_base, make("whole"))
    learn, answer = TRAINERS["grpo"][1].compute_loss, GRPOTrainer._generate_single_turn

    def compute_loss(self, model, inputs, **more):
        if len(inputs["completion_ids"]) > 10:
            raise torch.OutOfMemoryError("the answers do not fit")
        return learn(self, model, inputs, **more)

    monkeypatch.setattr(TRAINERS["grpo"][1], "compute_loss", compute_loss)
    result, halved = trained(lora_base, make("halved"))
    assert result.outcome is Outcome.COMPLETE
    assert result.micro_batch == 8
    assert halved.of("loss") == pytest.approx(whole.of("loss"), abs=1e-6)
    assert halved.of("grad_norm") == pytest.approx(whole.of("grad_norm"), rel=1e-3)

    def too_many(self, prompts, *more):
        if len(prompts) > 16:
            raise torch.OutOfMemoryError("the cache does not fit")
        return answer(self, prompts, *more)

    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", too_many)
    result, _ = trained(lora_base, make("answering"))
    assert result.outcome is Outcome.COMPLETE


def test_a_policy_whose_single_answer_does_not_fit_is_infeasible(lora_base, tiny_model, tmp_path, monkeypatch):
    from sweeper.training.techniques.policy import TRAINERS

    def compute_loss(self, model, inputs, **more):
        raise MemoryError("never")

    monkeypatch.setattr(TRAINERS["grpo"][1], "compute_loss", compute_loss)
    result, _ = trained(lora_base, policy_spec(tiny_model, tmp_path))
    assert result.outcome is Outcome.INFEASIBLE
    assert "a single row does not fit" in result.reason
    assert issubclass(OutOfMemoryError, Exception)


def test_the_seed_decides_everything(lora_base, tiny_model, tmp_path):
    make = lambda name, seed: policy_spec(  # noqa: E731
        tiny_model, tmp_path / name, longest=4, rewards=(LengthReward(target=4),), seed=seed
    )
    first, again, other = (trained(lora_base, make(*of))[1] for of in (("a", 1), ("b", 1), ("c", 2)))
    assert again.steps == first.steps
    assert other.steps != first.steps


def test_a_policy_that_is_pruned_stops_at_once(lora_base, tiny_model, tmp_path):
    curve = tiny.Curve(Decision.PRUNE, at=2)
    result, _ = trained(lora_base, policy_spec(tiny_model, tmp_path), curve=curve)
    assert (result.outcome, result.steps) == (Outcome.PRUNED, 2)


def test_long_prompts_are_dropped_and_none_left_is_a_fault(lora_base, tiny_model, tmp_path):
    spec = policy_spec(tiny_model, tmp_path, rows=9, epochs=1.0)
    result, _ = trained(lora_base, with_prompts(spec, "write " * 100, 1))
    assert result.total_steps == 1  # 8 of 9 prompts are left
    with pytest.raises(DataError, match="no prompt is left"):
        trained(lora_base, with_prompts(policy_spec(tiny_model, tmp_path / "short", max_length=8), "write " * 100))


def test_chats_are_answered_through_the_template(lora_base, tiny_model, tmp_path):
    spec = policy_spec(
        tiny_model, tmp_path, shape="prompt_completion_chat", longest=3, rewards=(LengthReward(target=3),)
    )
    result, curve = trained(lora_base, spec)
    assert result.outcome is Outcome.COMPLETE, result.reason
    assert 0 <= curve.of("mean_reward")[-1] <= 1


def test_a_lora_trial_has_no_copy_of_its_adapter(lora_base, tiny_model, tmp_path):
    from safetensors.torch import load_file

    spec = policy_spec(tiny_model, tmp_path, adapter=LoRA(), epochs=1.0)
    trained(lora_base, spec)
    assert not any(
        "ref" in name.split(".") for name in load_file(spec.folder / "adapter" / "adapter_model.safetensors")
    )
    assert not hasattr(lora_base.model, "peft_config")
