"""Which answer a model ranks higher."""

from __future__ import annotations

import numpy as np
import pytest
import tiny as tiny_parts
import torch

from sweeper.config.evaluation import EvaluationConfig
from sweeper.config.model import ModelConfig
from sweeper.config.technique import DPO, KTO, ORPO
from sweeper.evaluation.preferences import implicit_rewards, log_likelihoods, preference_statistics
from sweeper.evaluation.scorer import Scorer

PAIRS = [tiny_parts.row("preference", number) for number in range(100, 106)]
BOTH = EvaluationConfig(metric="preference_accuracy", metrics=("preference_accuracy", "preference_margin"))


@pytest.fixture(scope="module")
def base(tiny_model):
    from sweeper.config.adapter import LoRA
    from sweeper.training.base_model import load_base

    return load_base(tiny_model, ModelConfig(name="tiny"), LoRA(), "cpu")


def likelihood(base, prompt, answer):
    """The log-likelihood of an answer and the end token, by transformers alone."""
    begin = base.tokenizer(prompt)["input_ids"]
    ids = base.tokenizer(prompt + answer)["input_ids"] + [base.tokenizer.eos_token_id]
    start = next((n for n, (a, b) in enumerate(zip(begin, ids, strict=False)) if a != b), len(begin))
    with torch.no_grad():
        logs = base.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(float(logs[n - 1, ids[n]]) for n in range(start, len(ids))), len(ids) - start


def test_likelihoods_are_those_of_the_model(base):
    found = log_likelihoods(base.model, base.tokenizer, PAIRS)
    expected = [likelihood(base, row["prompt"], row[name]) for name in ("chosen", "rejected") for row in PAIRS]
    assert found == pytest.approx(np.array(expected), abs=1e-4)


def test_the_base_is_its_own_reference_and_ranks_nothing(base):
    metrics = Scorer(base, PAIRS, BOTH, DPO())(base.model).metrics
    assert (metrics["preference_accuracy"].value, metrics["preference_margin"].value) == (0.5, 0.0)


def test_without_a_reference_the_mean_token_decides(base):
    policy = log_likelihoods(base.model, base.tokenizer, PAIRS)
    means = policy[:, 0] / policy[:, 1]
    margins = means[: len(PAIRS)] - means[len(PAIRS) :]
    metrics = Scorer(base, PAIRS, BOTH, ORPO())(base.model).metrics
    assert metrics["preference_margin"].value == pytest.approx(margins.mean())
    assert metrics["preference_accuracy"].value == pytest.approx((margins > 0).mean())


def test_margins_and_accuracies_by_hand():
    rows = [{"chosen": "", "rejected": ""}] * 3
    rewards = implicit_rewards(
        np.array([[-1.0, 1], [-4, 2], [-2, 1], [-3, 1], [-2, 1], [-2, 1]]), np.array([[-2.0, 1]] * 6)
    )
    found = preference_statistics(rows, rewards)
    assert found["preference_margin"][:, 0] == pytest.approx([2, -2, 0])
    assert found["preference_accuracy"][:, 0] == pytest.approx([1, 0, 0.5])


def test_labelled_answers_are_right_where_the_reward_has_the_labels_sign():
    rows = [{"label": True}, {"label": False}, {"label": False}]
    found = preference_statistics(rows, np.array([1.0, -3.0, 2.0]))
    assert found["preference_margin"][:, 0] == pytest.approx([1, 3, -2])
    assert found["preference_accuracy"][:, 0] == pytest.approx([1, 1, 0])


def test_the_base_is_measured_once_for_the_same_rows(base):
    rows = [tiny_parts.row("unpaired", number) for number in range(6)]
    base.measured.clear()
    for _ in range(2):
        Scorer(base, rows, BOTH, KTO())
    assert len(base.measured) == 1
