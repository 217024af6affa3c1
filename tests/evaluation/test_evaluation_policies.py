"""How reward models and policies are scored on held-out rows."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

from sweeper.config.adapter import LoRA
from sweeper.config.evaluation import EvaluationConfig
from sweeper.config.model import ModelConfig
from sweeper.config.parameters import Hyperparameters
from sweeper.config.rewards import ExactMatchReward, LengthReward
from sweeper.config.technique import GRPO, RewardModel

METRICS = ("mean_reward", "win_rate", "kl", "exact_match")


@pytest.fixture(scope="module")
def base(tiny_model):
    from sweeper.training.base_model import load_base

    return load_base(tiny_model, ModelConfig(name="tiny"), LoRA(), "cpu")


@pytest.fixture(scope="module")
def scoring(tiny_model):
    from sweeper.training.base_model import load_base

    return load_base(tiny_model, ModelConfig(name="tiny"), LoRA(), "cpu", "score")


def moved(base, seed=0):
    """An adapter whose effect is large, on the base for the length of a with block."""
    import contextlib

    import torch

    from sweeper.training.adapters import peft_config

    @contextlib.contextmanager
    def adapted():
        with base.adapted(peft_config(LoRA(), Hyperparameters(learning_rate=1, batch_size=1, epochs=1)), 0) as model:
            generator = torch.Generator().manual_seed(seed)
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
            yield model

    return adapted()


def prompts(shape="prompt", count=7):
    return [tiny.row(shape, 3 ** (number + 1)) for number in range(count)]


def scorer(base, rows, *rewards, metrics=METRICS):
    from sweeper.evaluation.scorer import Scorer

    technique = GRPO(rewards=rewards or (LengthReward(target=6),))
    return Scorer(base, rows, EvaluationConfig(metrics=metrics, metric="mean_reward", max_new_tokens=6), technique)


def test_the_base_has_not_moved_and_wins_half(base):
    scores = scorer(base, prompts())(base.model)
    assert scores.metrics["kl"].value == 0.0
    assert scores.metrics["win_rate"].value == 0.5
    assert scores.prompts == tuple(row["prompt"] for row in prompts())
    assert scores.references == tuple(row["reference"] for row in prompts())


def test_rewards_are_those_of_the_answers_and_the_win_rate_compares_each_with_the_bases(base):
    measure = scorer(base, prompts())
    before = measure(base.model)
    with moved(base) as model:
        after = measure(model)
    earn = [max(0.0, 1 - abs(len(text) - 6) / 6) for text in after.predictions]
    assert after.metrics["mean_reward"].examples == pytest.approx(earn)
    was = before.metrics["mean_reward"].examples
    wins = [1.0 if now > then else 0.5 if now == then else 0.0 for now, then in zip(earn, was, strict=True)]
    assert after.metrics["win_rate"].examples == pytest.approx(wins)
    assert len(set(wins)) > 1
    assert after.metrics["exact_match"].value == 0.0


def test_the_divergence_is_the_exact_one_over_the_vocabulary(base):
    import torch

    from sweeper.evaluation.generation import answers
    from sweeper.evaluation.losses import divergences

    with moved(base) as model:
        found = answers(model, base.tokenizer, [row["prompt"] for row in prompts()], 6)
        measured = divergences(model, base.model, found)
        model.eval()
        for answer, (total, count) in zip(found, measured, strict=True):
            ids = torch.tensor([answer.prompt + answer.tokens])
            with torch.no_grad():
                policy = model(ids).logits[0].log_softmax(-1)
                with model.disable_adapter():
                    reference = model(ids).logits[0].log_softmax(-1)
            places = range(len(answer.prompt) - 1, ids.shape[1] - 1)
            by_hand = sum(float(torch.sum(policy[i].exp() * (policy[i] - reference[i]))) for i in places)
            assert total == pytest.approx(by_hand, rel=1e-4)
            assert count == len(answer.tokens) > 0
        assert (measured[:, 0] > 0).all()
        assert divergences(model, base.model, found, batch_size=1) == pytest.approx(measured, rel=1e-4)
        scored = scorer(base, prompts(), metrics=("kl",))(model).metrics["kl"].value
    assert scored == pytest.approx(measured[:, 0].sum() / measured[:, 1].sum())


def test_an_adapter_that_does_nothing_has_not_moved(base):
    from sweeper.training.adapters import peft_config

    with base.adapted(peft_config(LoRA(), Hyperparameters(learning_rate=1, batch_size=1, epochs=1)), 0) as model:
        assert scorer(base, prompts())(model).metrics["kl"].value == 0.0


def test_answers_end_with_the_token_that_ended_them(base):
    from sweeper.evaluation.generation import answers

    end = base.tokenizer.eos_token_id
    with moved(base) as model:
        for answer in answers(model, base.tokenizer, [row["prompt"] for row in prompts()], 6):
            assert end not in answer.tokens[:-1]
            assert base.tokenizer.decode(answer.tokens, skip_special_tokens=True) == answer.text


def test_prompts_without_references_and_chats_are_scored_as_well(base):
    rows = [{"prompt": [{"role": "user", "content": f"write {number}"}]} for number in range(3)]
    scores = scorer(base, rows, metrics=("mean_reward", "kl"))(base.model)
    assert scores.references == ("", "", "")
    assert scores.prompts == ("write 0", "write 1", "write 2")


def test_the_bases_answers_are_found_once(base, monkeypatch):
    from sweeper.evaluation import policies

    asked = []
    answer = policies.answers
    monkeypatch.setattr(
        policies, "answers", lambda model, *more, **named: asked.append(model) or answer(model, *more, **named)
    )
    rows = [{**row, "prompt": f"once {row['prompt']}"} for row in prompts()]
    scorer(base, rows)
    measure = scorer(base, rows)
    measure(base.model)
    assert asked == [base.model]


def test_a_pair_is_ranked_right_where_the_better_answer_scores_higher(scoring):
    """Against the model's own scores, one text at a time without any padding."""
    import torch

    from sweeper.evaluation.scorer import Scorer

    rows = [tiny.row("preference", 3 ** (number + 1)) for number in range(9)]
    config = EvaluationConfig(metric="preference_accuracy", metrics=("preference_accuracy", "preference_margin"))
    scores = Scorer(scoring, rows, config, RewardModel())(scoring.model)
    tokenizer = scoring.tokenizer

    def of(prompt, answer):
        ids = tokenizer(prompt + answer + tokenizer.eos_token, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            return float(scoring.model(input_ids=ids).logits)

    margins = np.array([of(row["prompt"], row["chosen"]) - of(row["prompt"], row["rejected"]) for row in rows])
    assert scores.metrics["preference_margin"].examples == pytest.approx(margins, abs=1e-5)
    assert scores.metrics["preference_accuracy"].value == pytest.approx((margins > 0).mean())
    assert 0 < (margins > 0).mean() < 1


@pytest.mark.parametrize("shape", ["preference", "preference_chat"])
def test_scores_are_the_same_in_batches_of_any_size_and_where_memory_runs_out(scoring, shape, monkeypatch):
    import torch

    from sweeper.evaluation import losses
    from sweeper.evaluation.preferences import answers_in

    examples = answers_in([tiny.row(shape, 3 ** (number + 1)) for number in range(9)], scoring.tokenizer)
    alone = losses.answer_scores(scoring.model, examples, batch_size=1)
    assert losses.answer_scores(scoring.model, examples) == pytest.approx(alone, abs=1e-5)
    score = losses.scores

    def too_many(model, rows):
        if len(rows) > 4:
            raise torch.OutOfMemoryError("does not fit")
        return score(model, rows)

    monkeypatch.setattr(losses, "scores", too_many)
    found = losses.answer_scores(scoring.model, examples, batch_size=18)
    assert found == pytest.approx(alone, abs=1e-5)


def test_exact_match_rewards_what_the_task_metric_counts(base):
    rows = [{**row, "reference": "\x05"} for row in prompts()]
    scores = scorer(base, rows, ExactMatchReward())(base.model)
    assert scores.metrics["mean_reward"].value == scores.metrics["exact_match"].value
