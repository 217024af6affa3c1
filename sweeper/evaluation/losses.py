"""Token losses of the answers, computed as training computes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from sweeper.errors import DataError
from sweeper.evaluation.batching import Progress, run_in_batches
from sweeper.evaluation.generation import as_found, chat_ids, context_length, default_batch_size, input_device
from sweeper.evaluation.metrics.aggregates import FloatArray
from sweeper.evaluation.rows import ChatExample, Example

_BATCH_SHARE = 4
"""Loss batches are this much smaller than those of generation: logits of all tokens are held, not of the last only."""


@dataclass(frozen=True)
class TokenRow:
    """One example in tokens; the loss is taken on those from ``start`` on."""

    ids: tuple[int, ...]
    start: int


def answer_losses(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    batch_size: int | None = None,
    on_progress: Progress | None = None,
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
    with as_found(model), torch.no_grad():
        results = run_in_batches(
            rows,
            lambda row: len(row.ids),
            batch_size or max(1, default_batch_size(model) // _BATCH_SHARE),
            lambda batch: _batch_losses(model, batch),
            on_progress,
        )
    return np.array(results, dtype=np.float64)


def token_row(tokenizer: Any, example: Example, context: int | None) -> TokenRow:
    """Return an example in tokens, as TRL's ``SFTTrainer`` makes them."""
    if isinstance(example, ChatExample):
        prompt = chat_ids(tokenizer, example.prompt, add_generation_prompt=True)
        ids = chat_ids(tokenizer, [*example.prompt, example.answer], add_generation_prompt=False)
    else:
        end = tokenizer.eos_token or ""
        completion = example.completion if example.completion.endswith(end) else example.completion + end
        prompt = list(tokenizer(example.prompt)["input_ids"]) if example.has_prompt else []
        ids = list(tokenizer(example.prompt + completion)["input_ids"])
    start = max(1, _common_prefix(prompt, ids))  # the first token of all has nothing before it
    surplus = 0 if context is None else max(0, len(ids) - context)
    return TokenRow(tuple(ids[surplus:]), max(1, start - surplus))


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    for index, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return index
    return min(len(left), len(right))


def _batch_losses(model: Any, batch: list[TokenRow]) -> list[tuple[float, int]]:
    device = input_device(model)
    rows = [torch.tensor(row.ids) for row in batch]
    input_ids = pad_sequence(rows, batch_first=True).to(device)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True).to(device)
    logits_BTV = model(input_ids=input_ids, attention_mask=mask, use_cache=False).logits
    logits_BTV = logits_BTV[:, -input_ids.shape[1] :]  # prompt tuning puts virtual tokens in front
    return [(_row_loss(logits_BTV[i], row), len(row.ids) - row.start) for i, row in enumerate(batch)]


def _row_loss(logits_TV: torch.Tensor, row: TokenRow) -> float:
    """Return the summed loss of a row's answer; in float32, as bfloat16 has three digits only."""
    predicting = logits_TV[row.start - 1 : len(row.ids) - 1].float()
    targets = torch.tensor(row.ids[row.start :], device=predicting.device)
    return float(cross_entropy(predicting, targets, reduction="sum"))
