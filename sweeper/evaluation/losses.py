"""Losses of answers, their reward-model scores, and a policy's divergence from its base: one forward pass each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from sweeper.errors import DataError
from sweeper.evaluation.batching import OnProgress, run_in_batches
from sweeper.evaluation.examples import PromptExample
from sweeper.evaluation.generation import (
    Answer,
    as_found,
    context_length,
    default_batch_size,
    input_device,
)
from sweeper.evaluation.metrics.base import FloatArray
from sweeper.training.reward_scores import scores

_LOSS_SHARE, _DIVERGENCE_SHARE = 4, 8
"""These batches are this much smaller than those of generation: the logits of all tokens are held, not of the last
only; for a divergence those of two models."""


@dataclass(frozen=True)
class TokenRow:
    """One example in tokens, and the places among them that are its answer, none of them the first."""

    ids: Sequence[int]
    places: Sequence[int]

    @property
    def targets(self) -> list[int]:
        """The answer's tokens."""
        return [self.ids[place] for place in self.places]


def answer_losses(
    model: Any,
    examples: Sequence[PromptExample],
    batch_size: int | None = None,
    on_progress: OnProgress | None = None,
) -> FloatArray:
    """Return each example's summed negative log-likelihood (nats) and number of answer tokens, shape (N, 2).

    The loss is on the tokens that training learns: every answer in a row, and of plain text every token that has one
    before it. Rows longer than the model's context lose their beginning.

    Raises:
        DataError: If a row has no token to predict.
        OutOfMemoryError: If a single row does not fit in memory.
    """
    rows = [token_row(example, context_length(model)) for example in examples]
    for number, row in enumerate(rows, start=1):
        if not row.places:
            raise DataError(f"row {number}: there is no token to predict; the row is empty, or the template drops it")

    def of_batch(batch: list[TokenRow]) -> list[tuple[float, int]]:
        logits = _answer_logits(model, batch)
        return [(_loss(*pair), len(pair[1].places)) for pair in zip(logits, batch, strict=True)]

    return _measured(model, rows, batch_size, _LOSS_SHARE, of_batch, on_progress)


def divergences(
    model: Any,
    base: Any,
    answers: Sequence[Answer],
    batch_size: int | None = None,
    on_progress: OnProgress | None = None,
) -> FloatArray:
    """Return the summed divergence (nats) and the number of tokens of each answer, shape (N, 2).

    At each token of an answer it is the exact Kullback-Leibler divergence of the policy's next-token distribution from
    that of the base without its adapter, over the whole vocabulary; not an estimate from the one token that was drawn
    (Schulman 2020, joschu.net/blog/kl-approx.html).

    Args:
        model: The policy: the base with an adapter on it, a whole model, or the base itself, which has not moved.
        base: The model that it began as.
        answers: What the policy answered.
        batch_size: Answers per batch; None for what suits the device. Halved when memory runs out.
        on_progress: Called after every batch.

    Raises:
        OutOfMemoryError: If a single answer does not fit in memory.
    """
    if model is base:
        return np.array([(0.0, len(answer.tokens)) for answer in answers], dtype=np.float64)
    adapted = hasattr(model, "disable_adapter")

    def of_batch(batch: list[TokenRow]) -> list[tuple[float, int]]:
        policy = _answer_logits(model, batch)
        without: AbstractContextManager[Any] = model.disable_adapter() if adapted else nullcontext()
        with without:
            reference = _answer_logits(model if adapted else base, batch)
        return [(_divergence(*pair), len(pair[0])) for pair in zip(policy, reference, strict=True)]

    rows = [_after_prompt(answer) for answer in answers]
    return _measured(model, rows, batch_size, _DIVERGENCE_SHARE, of_batch, on_progress)


def answer_scores(
    model: Any,
    examples: Sequence[PromptExample],
    batch_size: int | None = None,
    on_progress: OnProgress | None = None,
) -> FloatArray:
    """Return a reward model's score of each example's answer, shape (N,): the same whatever the batch size.

    Rows become tokens as in TRL's ``RewardTrainer``; those longer than the model's context lose their beginning.

    Raises:
        OutOfMemoryError: If a single row does not fit in memory.
    """
    rows = [token_row(example, context_length(model)) for example in examples]
    return _measured(model, rows, batch_size, 1, lambda of: scores(model, [row.ids for row in of]), on_progress)


def token_row(example: PromptExample, context: int | None) -> TokenRow:
    """Return an example in tokens, of which those beyond the model's context are left out at the beginning."""
    assert example.rendering is not None
    ids, answers = example.rendering.ids, example.rendering.answers
    learned = [answer for answer in answers if answer.learned] or answers[-1:]
    surplus = 0 if context is None else max(0, len(ids) - context)
    places = [place - surplus for answer in learned for place in range(answer.start, answer.end) if place > surplus]
    return TokenRow(ids[surplus:], places)


def _after_prompt(answer: Answer) -> TokenRow:
    ids = answer.prompt + answer.tokens
    return TokenRow(ids, range(len(answer.prompt), len(ids)))


def _measured(
    model: Any,
    rows: Sequence[TokenRow],
    batch_size: int | None,
    share: int,
    of_batch: Callable[[list[TokenRow]], list[Any]],
    on_progress: OnProgress | None,
) -> FloatArray:
    size = batch_size or max(1, default_batch_size(model) // share)
    with as_found(model), torch.no_grad():
        results = run_in_batches(rows, lambda row: len(row.ids), size, of_batch, on_progress)
    return np.array(results, dtype=np.float64)


def _answer_logits(model: Any, batch: list[TokenRow]) -> list[torch.Tensor]:
    """Return the logits that predict each row's answer, each of shape (answer tokens, vocabulary)."""
    device = input_device(model)
    rows = [torch.tensor(row.ids) for row in batch]
    input_ids = pad_sequence(rows, batch_first=True).to(device)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True).to(device)
    logits_BTV = model(input_ids=input_ids, attention_mask=mask, use_cache=False).logits
    logits_BTV = logits_BTV[:, -input_ids.shape[1] :]  # prompt tuning puts virtual tokens in front
    before = [torch.tensor(row.places, device=device, dtype=torch.long) - 1 for row in batch]
    return [logits_BTV[index, places] for index, places in enumerate(before)]


def _loss(logits_TV: torch.Tensor, row: TokenRow) -> float:
    """Return the summed loss of a row's answer; in float32, as bfloat16 has only three digits."""
    targets = torch.tensor(row.targets, device=logits_TV.device)
    return float(cross_entropy(logits_TV.float(), targets, reduction="sum"))


def _divergence(policy_TV: torch.Tensor, reference_TV: torch.Tensor) -> float:
    """Return the divergence summed over an answer's tokens; in float32, as bfloat16 has only three digits."""
    policy, reference = policy_TV.float().log_softmax(-1), reference_TV.float().log_softmax(-1)
    return float((policy.exp() * (policy - reference)).sum())
