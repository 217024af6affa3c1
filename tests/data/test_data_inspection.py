from __future__ import annotations

import pytest
import tiny

from sweeper.config.technique import SFT
from sweeper.data import inspection
from sweeper.data.inspection import COUNTED_ROWS, answers_of, evenly, inspect_split
from sweeper.data.tokenizer import ModelTokenizer
from sweeper.errors import DataError


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return ModelTokenizer.load(tiny_model)


def test_lengths_cuts_and_lost_tokens(tokenizer):
    rows = [{"prompt": "z" * size, "completion": "y" * 10} for size in (5, 10, 30)]
    view = inspect_split(rows, tokenizer, SFT(max_length=18))
    assert (view.rows, view.columns) == (3, ("prompt", "completion"))
    assert view.totals == (16, 21, 41)  # a letter a token, and the end
    assert (view.prompt.longest, view.answer.median, view.total.mean) == (30, 11, 26)
    assert view.cut == (1, 2) and view.dropped == (2,)
    assert (view.loss_tokens, view.lost_loss_tokens) == (33, 3 + 11)
    assert view.truncated == pytest.approx(2 / 3) and view.lost == pytest.approx(14 / 33)


def test_answers_are_measured_for_variety(tokenizer):
    rows = [{"prompt": "p", "completion": text} for text in ("one two one", "One two", "  ")]
    view = inspect_split(rows, tokenizer, SFT())
    assert view.empty_answers == 1
    assert view.type_token_ratio == 2 / 5
    assert view.distinct_bigrams == 2 / 3
    blank = inspect_split(rows[2:], tokenizer, SFT())
    assert blank.type_token_ratio is None and blank.distinct_bigrams is None


@pytest.mark.parametrize(
    ("shape", "answers"),
    [
        ("prompt_completion", ["7"]),
        ("prompt_completion_chat", ["7"]),
        ("messages", ["7"]),
        ("text", ["write seven: 7"]),
        ("preference", ["7", "8"]),
        ("preference_chat", ["7", "8"]),
        ("prompt", ["7"]),
    ],
)
def test_every_shape_has_its_answers(shape, answers):
    assert answers_of(tiny.row(shape, 7)) == answers


def test_of_many_rows_some_are_counted_evenly(tokenizer, monkeypatch):
    monkeypatch.setattr(inspection, "COUNTED_ROWS", 4)
    view = inspect_split([tiny.row("text", number) for number in range(10)], tokenizer, SFT())
    assert view.rows == 10 and view.counted == (0, 2, 5, 7) and len(view.totals) == 4


def test_a_split_without_rows_is_refused(tokenizer):
    with pytest.raises(DataError, match="has no rows"):
        inspect_split([], tokenizer, SFT())


def test_the_counted_rows_are_evenly_spread_and_bounded():
    taken = evenly(10 * COUNTED_ROWS)
    assert len(taken) == COUNTED_ROWS and taken[:3] == [0, 10, 20]
    assert evenly(5) == [0, 1, 2, 3, 4]
