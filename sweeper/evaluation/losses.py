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
    chat_ids,
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
    """One example in tokens; the answer is ``ids[start:]``."""

    ids: Sequence[int]
    start: int


def answer_losses(
    model: Any,
    tokenizer: Any,
    examples: Sequence[PromptExample],
    batch_size: int | None = None,
    on_progress: OnProgress | None = None,
) -> FloatArray:
    """Return each example's summed negative log-likelihood (nats) and number of answer tokens, shape (N, 2).

    Rows become tokens as in TRL's ``SFTTrainer``: text answers end with the end-of-sequence token, conversations go
    through the chat template, and the answer begins where the tokens of the prompt alone and of the whole row part.
    The loss is on the last answer only; of plain text it is on every token that has one before it. Rows longer than
    the model's context lose their beginning.

    Raises:
        DataError: If a row has no token to predict, or the tokenizer has no chat template that the rows need.
        OutOfMemoryError: If a single row does not fit in memory.
    """
    rows = [token_row(tokenizer, example, context_length(model)) for example in examples]
    for number, row in enumerate(rows, start=1):
        if row.start >= len(row.ids):
            raise DataError(f"row {number}: there is no token to predict; the row is empty, or the template drops it")

    def of_batch(batch: list[TokenRow]) -> list[tuple[float, int]]:
        logits = _answer_logits(model, batch)
        return [(_loss(*pair), len(pair[1].ids) - pair[1].start) for pair in zip(logits, batch, strict=True)]

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

    rows = [TokenRow(answer.prompt + answer.tokens, len(answer.prompt)) for answer in answers]
    return _measured(model, rows, batch_size, _DIVERGENCE_SHARE, of_batch, on_progress)


def answer_scores(
    model: Any,
    tokenizer: Any,
    examples: Sequence[PromptExample],
    batch_size: int | None = None,
    on_progress: OnProgress | None = None,
) -> FloatArray:
    """Return a reward model's score of each example's answer, shape (N,): the same whatever the batch size.

    Rows become tokens as in TRL's ``RewardTrainer``; those longer than the model's context lose their beginning.

    Raises:
        DataError: If the tokenizer has no chat template that the rows need.
        OutOfMemoryError: If a single row does not fit in memory.
    """
    rows = [token_row(tokenizer, example, context_length(model)) for example in examples]
    return _measured(model, rows, batch_size, 1, lambda of: scores(model, [row.ids for row in of]), on_progress)


def token_row(tokenizer: Any, example: PromptExample, context: int | None) -> TokenRow:
    """Return an example in tokens, as TRL's ``SFTTrainer`` makes them."""
    if isinstance(example.prompt, str):
        end = tokenizer.eos_token or ""
        completion = example.completion if example.completion.endswith(end) else example.completion + end
        prompt = list(tokenizer(example.prompt)["input_ids"]) if example.has_prompt else []
        ids = list(tokenizer(example.prompt + completion)["input_ids"])
    else:
        answer = {"role": "assistant", "content": example.completion}
        prompt = chat_ids(tokenizer, example.prompt, add_generation_prompt=True)
        ids = chat_ids(tokenizer, [*example.prompt, answer], add_generation_prompt=False)
    start = max(1, _common_prefix(prompt, ids))  # the first token of all has nothing before it
    surplus = 0 if context is None else max(0, len(ids) - context)
    return TokenRow(ids[surplus:], max(1, start - surplus))


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    pairs = enumerate(zip(left, right, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(left), len(right)))


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
    return [logits_BTV[index, row.start - 1 : len(row.ids) - 1] for index, row in enumerate(batch)]


def _loss(logits_TV: torch.Tensor, row: TokenRow) -> float:
    """Return the summed loss of a row's answer; in float32, as bfloat16 has only three digits."""
    targets = torch.tensor(row.ids[row.start :], device=logits_TV.device)
    return float(cross_entropy(logits_TV.float(), targets, reduction="sum"))


def _divergence(policy_TV: torch.Tensor, reference_TV: torch.Tensor) -> float:
    """Return the divergence summed over an answer's tokens; in float32, as bfloat16 has only three digits."""
    policy, reference = policy_TV.float().log_softmax(-1), reference_TV.float().log_softmax(-1)
    return float((policy.exp() * (policy - reference)).sum())
