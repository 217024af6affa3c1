"""Rows without a right answer: pairs, labelled answers and prompts."""

from __future__ import annotations

import pytest

from sweeper.config.data import DataConfig
from sweeper.data.formats import convert, kind_of
from sweeper.errors import DataError

USER = {"role": "user", "content": "2 + 2?"}
GOOD, BAD = {"role": "assistant", "content": "4"}, {"role": "assistant", "content": "5"}


def run(row, learns="pairs", **config):
    return convert([row], DataConfig(train="x.jsonl", **config), "x.jsonl", learns)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            {"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5", "source": "me"},
            {"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5"},
        ),
        ({"chosen": "2 + 2 = 4", "rejected": "2 + 2 = 5"}, {"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5"}),
        ({"chosen": [USER, GOOD], "rejected": [USER, BAD]}, {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}),
        (
            {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD], "margin": "1.5"},
            {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD], "margin": 1.5},
        ),
    ],
)
def test_pairs(row, expected):
    assert run(row) == [expected]


@pytest.mark.parametrize("label", [True, "true", 1, "1", 1.0])
def test_labels(label):
    (row,) = run({"prompt": "a", "completion": "b", "label": label}, "labelled")
    assert row == {"prompt": "a", "completion": "b", "label": True}
    assert kind_of(row) == "unpaired_preference"


def test_a_pair_is_two_labelled_answers():
    rows = run({"prompt": "a", "chosen": "b", "rejected": "c"}, "labelled")
    assert [(row["completion"], row["label"]) for row in rows] == [("b", True), ("c", False)]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "a"}, {"prompt": "a"}),
        ({"prompt": "a", "reference": 4}, {"prompt": "a", "reference": "4"}),
        ({"prompt": "a", "completion": "b"}, {"prompt": "a", "reference": "b"}),
        ({"messages": [USER, GOOD]}, {"prompt": [USER], "reference": "4"}),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a"}),
    ],
)
def test_prompts(row, expected):
    assert run(row, "prompts") == [expected]


def test_renamed_columns():
    row = {"question": "a", "solution": "b"}
    columns = {"prompt": "question", "reference": "solution"}
    assert run(row, "prompts", columns=columns) == [{"prompt": "a", "reference": "b"}]


@pytest.mark.parametrize(
    ("row", "learns", "message"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "pairs", "are the same"),
        ({"chosen": "yes", "rejected": "no"}, "pairs", "do not begin alike; name the prompt"),
        ({"prompt": "a", "chosen": "b", "rejected": [BAD]}, "pairs", "must both be text"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "margin": "much"}, "pairs", "'margin' must be a number"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "margin": "nan"}, "pairs", "must be a finite number"),
        ({"prompt": "a", "completion": "b"}, "pairs", r"needs the columns chosen \+ rejected"),
        ({"prompt": "a", "completion": "b", "label": "maybe"}, "labelled", "must be true or false"),
        ({"prompt": [GOOD]}, "prompts", "must end with the user's turn"),
        ({"text": "a"}, "prompts", "needs the columns"),
    ],
)
def test_faults_name_the_row(row, learns, message):
    with pytest.raises(DataError, match=message):
        run(row, learns)


def test_a_format_that_the_technique_does_not_learn_from():
    with pytest.raises(DataError, match="text is not what the technique learns from; use preference"):
        run({"text": "a"}, "pairs", format="text")
