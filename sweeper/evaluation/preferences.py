"""Preference accuracy and margin: how often, and by how much, a model ranks the better answer first.

A model trained against a reference ranks by its implicit reward: how much more likely an answer has become, the sum of
log pi - log pi_ref over its tokens (Rafailov et al. 2023, arXiv:2305.18290, section 4). The factor beta is left out,
because it is searched, and would make margins of different trials incomparable; so margins are in nats. The base model
is its own reference and ranks nothing: its accuracy is one half.

A model trained without a reference ranks by the mean log-likelihood of a token, as ORPO does (Hong et al. 2024,
arXiv:2403.07691, section 4.2); sums would favour the shorter answer. A reward model ranks by its scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sweeper.data.rendering import Row
from sweeper.evaluation.batching import OnProgress
from sweeper.evaluation.examples import PromptExample, read_examples
from sweeper.evaluation.losses import answer_losses
from sweeper.evaluation.metrics.base import FloatArray


def answers_in(rows: Sequence[Row], tokenizer: Any) -> list[PromptExample]:
    """Return every answer in the rows with its prompt: of pairs first the better ones, then the worse."""
    columns = ("completion",) if "label" in rows[0] else ("chosen", "rejected")
    return read_examples([{**row, "completion": row[name]} for name in columns for row in rows], tokenizer)


def log_likelihoods(
    model: Any, tokenizer: Any, rows: Sequence[Row], on_progress: OnProgress | None = None
) -> FloatArray:
    """Return the summed log-likelihood and the number of tokens of every answer in the rows, shape (answers, 2)."""
    losses_A2 = answer_losses(model, answers_in(rows, tokenizer), on_progress=on_progress)
    likelihoods_A2: FloatArray = losses_A2 * np.array([-1.0, 1.0])
    return likelihoods_A2


def implicit_rewards(policy_A2: FloatArray, reference_A2: FloatArray | None) -> FloatArray:
    """Return the reward of each answer, shape (answers,); see the module's text."""
    if reference_A2 is None:
        means: FloatArray = policy_A2[:, 0] / policy_A2[:, 1]
        return means
    rewards: FloatArray = policy_A2[:, 0] - reference_A2[:, 0]
    return rewards


def preference_statistics(rows: Sequence[Row], rewards_A: FloatArray) -> dict[str, FloatArray]:
    """Return the accuracy and the margin of each row, shape (N, 1), from the rewards of its answers.

    Of a pair the margin is the better answer's reward minus the worse one's; of an answer with a label it is its
    reward, or its negative where the label is false. A row counts as right where its margin is above 0, and half where
    it is 0.
    """
    if "label" in rows[0]:
        margins = rewards_A * np.array([1.0 if row["label"] else -1.0 for row in rows])
    else:
        margins = rewards_A[: len(rows)] - rewards_A[len(rows) :]
    accuracies = (np.sign(margins) + 1) / 2
    return {"preference_accuracy": accuracies.reshape(-1, 1), "preference_margin": margins.reshape(-1, 1)}
