"""How processes share the rows of a step; that they train the same is tested with real ones."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sweeper.config.trial import Decision
from sweeper.training.micro_batch import WholeBatch
from sweeper.training.ranks import IGNORED, Ranks


def collate(rows):
    """Pad to the longest row; a label is the number of the row."""
    width = max(len(row["input_ids"]) for row in rows)
    labels = [row["labels"] + [IGNORED] * (width - len(row["labels"])) for row in rows]
    return {"labels": torch.tensor(labels)}


def batch(lengths):
    return WholeBatch([{"input_ids": [0] * n, "labels": [number] * n} for number, n in enumerate(lengths)])


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=17), size=st.integers(1, 5), most=st.integers(1, 6))
def test_every_row_is_trained_once_and_all_ranks_pass_as_often(lengths, size, most):
    whole = batch(lengths)
    shares = [Ranks(rank, size).parts(whole, most, collate) for rank in range(size)]
    assert len({len(parts) for parts in shares}) == 1
    rows = [row for parts in shares for part in parts for row in part["labels"].tolist()]
    trained = sorted(max(row) for row in rows if max(row) != IGNORED)
    assert trained == list(range(len(lengths)))
    assert all(len(part["labels"]) <= most for parts in shares for part in parts)


def test_a_process_by_itself_asks_nobody():
    alone = Ranks()
    assert alone.leads
    assert alone.total(3) == 3
    assert alone.mean(torch.tensor(2.0)) == 2.0
    assert alone.agree(Decision.PRUNE) is Decision.PRUNE


@pytest.mark.parametrize("lengths, tokens", [([3], 3), ([1, 5, 2], 8)])
def test_tokens_are_those_of_the_whole_batch(lengths, tokens):
    assert batch(lengths).tokens == tokens
