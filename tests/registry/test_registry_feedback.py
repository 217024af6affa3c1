"""Feedback as rows to train on, read back by sweeper's own reader."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from sweeper.config.data import DataConfig
from sweeper.data.formats import convert
from sweeper.data.read import read_rows
from sweeper.errors import DataError
from sweeper.registry.feedback import training_rows, write_rows
from sweeper.store import Feedback

TURNS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "write one"}]


def given(answer="2", good=None, correction=None, prompt="write one", chat=False) -> Feedback:
    settings: dict[str, Any] = {"messages": TURNS} if chat else {}
    return Feedback(datetime.now(UTC), "ann", "itn", 1, "base", prompt, answer, good, correction, settings)


def said(text):
    return [{"role": "assistant", "content": text}]


FEEDBACK = [
    given("2", False, "1"),
    given("2", False, "1"),  # said twice
    given("one", True),
    given("seven", False),
    given("", False),
    given("3", True, prompt="write three"),
]


@pytest.mark.parametrize(
    ("kind", "learns", "rows"),
    [
        ("completions", "answers", {("write one", "1"), ("write one", "one"), ("write three", "3")}),
        (
            "pairs",
            "pairs",
            {("write one", right, wrong) for right in ("1", "one") for wrong in ("2", "seven")},
        ),
        (
            "labelled",
            "labelled",
            {
                ("write one", "1", True),
                ("write one", "one", True),
                ("write one", "2", False),
                ("write one", "seven", False),
                ("write three", "3", True),
            },
        ),
    ],
)
def test_rows_are_read_back_by_the_reader_of_studies(tmp_path, kind, learns, rows):
    write_rows(training_rows(FEEDBACK, kind), tmp_path / "rows.jsonl")
    read = convert(read_rows("rows.jsonl", tmp_path), DataConfig(train=("rows.jsonl",)), "rows.jsonl", learns)
    assert len(read) == len(rows)
    assert {tuple(row.values()) for row in read} == rows


@pytest.mark.parametrize(("kind", "learns"), [("completions", "answers"), ("pairs", "pairs"), ("labelled", "labelled")])
def test_conversations_keep_their_turns(tmp_path, kind, learns):
    write_rows(training_rows([given("2", None, "1", chat=True)], kind), tmp_path / "rows.jsonl")
    read = convert(read_rows("rows.jsonl", tmp_path), DataConfig(train=("rows.jsonl",)), "rows.jsonl", learns)
    assert all(row["prompt"] == TURNS for row in read)
    assert said("1") in read[0].values()


def test_text_and_conversations_are_not_mixed():
    with pytest.raises(DataError, match="name one version"):
        training_rows([given("2", True), given("2", True, chat=True)], "completions")


def test_a_correction_that_is_the_answer_is_no_pair():
    assert training_rows([given("1", None, "1")], "pairs") == []
