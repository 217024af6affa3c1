"""How far a policy has moved from the base model that it began as."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from sweeper.evaluation.batching import Progress, run_in_batches
from sweeper.evaluation.generation import Answer, as_found, default_batch_size, input_device
from sweeper.evaluation.metrics.aggregates import FloatArray

_BATCH_SHARE = 8
"""Batches are this much smaller than those of generation: the logits of all tokens are held, of two models."""


def divergences(
    model: Any,
    base: Any,
    answers: Sequence[Answer],
    batch_size: int | None = None,
    on_progress: Progress | None = None,
) -> FloatArray:
    """Return, of each answer, the summed divergence (nats) and the number of its tokens, shape (N, 2).

    At each token of an answer it is the exact Kullback-Leibler divergence of the policy's next-token distribution from
    that of the base without its adapter, over the whole vocabulary; not an estimate from the one token that was drawn
    (Schulman 2020, joschu.net/blog/kl-approx.html).

    Args:
        model: The policy: the base with an adapter on it, a whole model, or the base itself, which has not moved.
        base: The model that it began as.
        answers: What the policy answered.
        batch_size: Answers per batch; None for what suits the device. Halved where memory runs out.
        on_progress: Told after every batch.

    Raises:
        OutOfMemoryError: If a single answer does not fit in memory.
    """
    if model is base:
        return np.array([(0.0, len(answer.tokens)) for answer in answers], dtype=np.float64)
    with as_found(model), torch.no_grad():
        results = run_in_batches(
            answers,
            lambda answer: len(answer.prompt) + len(answer.tokens),
            batch_size or max(1, default_batch_size(model) // _BATCH_SHARE),
            lambda batch: _of_batch(model, base, batch),
            on_progress,
        )
    return np.array(results, dtype=np.float64)


def _of_batch(model: Any, base: Any, batch: list[Answer]) -> list[tuple[float, int]]:
    policy = _logits(model, batch)
    adapted = hasattr(model, "disable_adapter")
    without: AbstractContextManager[Any] = model.disable_adapter() if adapted else nullcontext()
    with without:
        reference = _logits(model if adapted else base, batch)
    return [(_of_answer(*pair), len(answer.tokens)) for *pair, answer in zip(policy, reference, batch, strict=True)]


def _logits(model: Any, batch: list[Answer]) -> list[torch.Tensor]:
    """Return the logits that each answer's tokens were drawn from."""
    device = input_device(model)
    rows = [torch.tensor(answer.prompt + answer.tokens) for answer in batch]
    input_ids = pad_sequence(rows, batch_first=True).to(device)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True).to(device)
    logits_BTV = model(input_ids=input_ids, attention_mask=mask, use_cache=False).logits
    logits_BTV = logits_BTV[:, -input_ids.shape[1] :]  # prompt tuning puts virtual tokens in front
    spans = [(len(answer.prompt) - 1, len(answer.prompt) + len(answer.tokens) - 1) for answer in batch]
    return [logits_BTV[index, start:end] for index, (start, end) in enumerate(spans)]


def _of_answer(policy_TV: torch.Tensor, reference_TV: torch.Tensor) -> float:
    """Return the divergence summed over an answer's tokens; in float32, as bfloat16 has three digits only."""
    policy, reference = policy_TV.float().log_softmax(-1), reference_TV.float().log_softmax(-1)
    return float((policy.exp() * (policy - reference)).sum())
