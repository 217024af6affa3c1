"""What a reward model gives to the answers in held-out rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sweeper.evaluation.batching import Progress, run_in_batches
from sweeper.evaluation.generation import as_found, context_length, default_batch_size
from sweeper.evaluation.losses import token_row
from sweeper.evaluation.metrics.aggregates import FloatArray
from sweeper.evaluation.rows import Example
from sweeper.training.reward_scores import scores


def answer_scores(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    batch_size: int | None = None,
    on_progress: Progress | None = None,
) -> FloatArray:
    """Return the score of each example's answer, shape (N,): the same whatever the batch size.

    Rows become tokens as in TRL's ``RewardTrainer``; those longer than the model's context lose their beginning.

    Raises:
        DataError: If the tokenizer has no chat template that the rows need.
        OutOfMemoryError: If a single row does not fit in memory.
    """
    rows = [token_row(tokenizer, example, context_length(model)).ids for example in examples]
    with as_found(model):
        size = batch_size or default_batch_size(model)
        return np.array(run_in_batches(rows, len, size, lambda batch: scores(model, batch), on_progress))
