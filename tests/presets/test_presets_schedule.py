"""Optimizer steps and warmup as the Hugging Face trainer counts them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainingArguments

from sweeper.config.parameters import steps, warmup


@pytest.mark.parametrize(
    ("rows", "batch", "epochs", "expected"), [(2000, 16, 1, 125), (2001, 16, 1, 126), (10, 16, 3, 3), (100, 8, 0.5, 7)]
)
def test_steps(rows, batch, epochs, expected):
    assert steps(rows, batch, epochs) == expected


@given(rows=st.integers(1, 10_000), micro=st.integers(1, 64), accumulation=st.integers(1, 16), epochs=st.integers(1, 5))
def test_steps_agree_with_batches_and_accumulation(rows, micro, accumulation, epochs):
    batches = -(-rows // micro)
    assert steps(rows, micro * accumulation, epochs) == epochs * max(1, -(-batches // accumulation))


@pytest.mark.parametrize("bad", [(0, 8, 1), (10, 0, 1), (10, 8, 0)])
def test_steps_refuses_nothing_to_train_on(bad):
    with pytest.raises(ValueError, match="above 0"):
        steps(*bad)


@pytest.mark.parametrize("total", [1, 7, 125, 1000])
@pytest.mark.parametrize("ratio", [0.0, 0.03, 0.1])
def test_warmup_ratio_agrees_with_transformers(tmp_path, total, ratio):
    arguments = TrainingArguments(output_dir=str(tmp_path), warmup_steps=ratio, use_cpu=True)
    assert warmup(total, None, ratio) == arguments.get_warmup_steps(total)


def test_warmup_steps_win_and_are_not_capped():
    assert warmup(50, 100, None) == 100
    assert warmup(50, None, None) == 0
