"""Rows as public data sets and other tools' documentation lay them out, written anew, and what is made of them."""

from __future__ import annotations

import json

import pytest

from sweeper.config.data import DataConfig
from sweeper.data.formats import convert, convert_source
from sweeper.data.layouts import ALPACA, ALPACA_WITH_INPUT
from sweeper.errors import DataError

USER, ANSWER = {"role": "user", "content": "two"}, {"role": "assistant", "content": "2"}
WRONG = {"role": "assistant", "content": "3"}
SYSTEM = {"role": "system", "content": "Digits only."}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
CALLED = [
    USER,
    {"role": "assistant", "tool_calls": [CALL], "content": ""},
    {"role": "tool", "content": "2"},
    ANSWER,
]
NULLS = {"tool_calls": None, "name": None, "reasoning_content": None}

ANSWERS = {
    "OpenAI fine-tuning": ({"messages": [SYSTEM, USER, ANSWER]}, {"messages": [SYSTEM, USER, ANSWER]}),
    "OpenAI, a turn without weight": (
        {"messages": [USER, {**WRONG, "weight": 0}, USER, {**ANSWER, "weight": 1}]},
        {"messages": [USER, {**WRONG, "weight": 0}, USER, ANSWER]},
    ),
    "OpenAI, developer": (
        {"messages": [{"role": "developer", "content": "Digits only."}, USER, ANSWER]},
        {"messages": [SYSTEM, USER, ANSWER]},
    ),
    "OpenAI, parts": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "t"}, {"type": "text", "text": "wo"}]},
                ANSWER,
            ]
        },
        {"messages": [USER, ANSWER]},
    ),
    "OpenAI, tools": (
        {
            "messages": [
                USER,
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}],
                },
                {"role": "tool", "content": "2"},
                ANSWER,
            ],
            "tools": [TOOL],
        },
        {"messages": CALLED, "tools": [TOOL]},
    ),
    "Parquet, keys of other messages": (
        {"messages": [{**USER, **NULLS}, {**ANSWER, **NULLS}]},
        {"messages": [USER, ANSWER]},
    ),
    "ShareGPT": (
        {"conversations": [{"from": "human", "value": "two"}, {"from": "gpt", "value": "2"}]},
        {"messages": [USER, ANSWER]},
    ),
    "ShareGPT, system": (
        {"conversations": [{"from": "human", "value": "two"}, {"from": "gpt", "value": "2"}], "system": "Digits only."},
        {"messages": [SYSTEM, USER, ANSWER]},
    ),
    "LLaMA-Factory, tools": (
        {
            "conversations": [
                {"from": "human", "value": "two"},
                {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
                {"from": "observation", "value": "2"},
                {"from": "gpt", "value": "2"},
            ],
            "tools": json.dumps([TOOL]),
        },
        {"messages": CALLED, "tools": [TOOL]},
    ),
    "Axolotl, a turn not trained": (
        {"messages": [USER, {**WRONG, "train": False}, USER, {**ANSWER, "train": True}]},
        {"messages": [USER, {**WRONG, "weight": 0}, USER, ANSWER]},
    ),
    "DeepSeek, reasoning": (
        {"messages": [USER, {**ANSWER, "reasoning_content": "one and one"}]},
        {"messages": [USER, {**ANSWER, "reasoning_content": "one and one"}]},
    ),
    "gpt-oss, thinking": (
        {"messages": [USER, {**ANSWER, "thinking": "one and one"}]},
        {"messages": [USER, {**ANSWER, "reasoning_content": "one and one"}]},
    ),
    "Gemini": (
        {"messages": [USER, {"role": "model", "content": "2"}]},
        {"messages": [USER, ANSWER]},
    ),
    "TRL, prompt and completion": (
        {"prompt": [USER], "completion": [ANSWER], "tools": [TOOL]},
        {"prompt": [USER], "completion": [ANSWER], "tools": [TOOL]},
    ),
    "TRL, a number": ({"prompt": "two:", "completion": 2}, {"prompt": "two:", "completion": "2"}),
    "Alpaca": (
        {"instruction": "two", "input": "", "output": "2", "text": "two 2"},
        {"prompt": ALPACA.format(instruction="two"), "completion": "2"},
    ),
    "Alpaca, a blank input": (
        {"instruction": "two", "input": " \n", "output": "2"},
        {"prompt": ALPACA.format(instruction="two"), "completion": "2"},
    ),
    "LLaMA-Factory, system and history": (
        {"instruction": "two", "input": "x", "output": "2", "system": "Digits only.", "history": [["one", "1"]]},
        {
            "prompt": "Digits only.\n\n"
            + ALPACA.format(instruction="one")
            + "1\n\n"
            + ALPACA_WITH_INPUT.format(instruction="two", input="x"),
            "completion": "2",
        },
    ),
}
PAIRS = {
    "TRL": ({"prompt": "two:", "chosen": "2", "rejected": "3"}, {"prompt": "two:", "chosen": "2", "rejected": "3"}),
    "HH-RLHF": (
        {"chosen": "\n\nHuman: two\n\nAssistant: 2", "rejected": "\n\nHuman: two\n\nAssistant: 3"},
        {"prompt": "\n\nHuman: two\n\nAssistant:", "chosen": " 2", "rejected": " 3"},
    ),
    "UltraFeedback, whole conversations beside a text": (
        {"prompt": "two", "chosen": [USER, ANSWER], "rejected": [USER, WRONG], "score_chosen": 8.0},
        {"prompt": [USER], "chosen": [ANSWER], "rejected": [WRONG]},
    ),
    "Capybara, without a prompt": (
        {"chosen": [USER, ANSWER], "rejected": [USER, WRONG]},
        {"prompt": [USER], "chosen": [ANSWER], "rejected": [WRONG]},
    ),
    "LLaMA-Factory": (
        {"instruction": "two", "input": "", "chosen": "2", "rejected": "3"},
        {"prompt": "two\n\n", "chosen": "2", "rejected": "3"},
    ),
    "LLaMA-Factory, conversations": (
        {
            "conversations": [{"from": "human", "value": "two"}],
            "chosen": {"from": "gpt", "value": "2"},
            "rejected": {"from": "gpt", "value": "3"},
        },
        {"prompt": [USER], "chosen": [ANSWER], "rejected": [WRONG]},
    ),
    "Orca, a system column": (
        {"system": "Digits only.", "prompt": [USER], "chosen": [ANSWER], "rejected": [WRONG]},
        {"prompt": [SYSTEM, USER], "chosen": [ANSWER], "rejected": [WRONG]},
    ),
}


@pytest.mark.parametrize(
    ("row", "learns", "expected"),
    [
        pytest.param(row, learns, expected, id=name)
        for learns, layouts in (("answers", ANSWERS), ("pairs", PAIRS))
        for name, (row, expected) in layouts.items()
    ],
)
def test_a_public_layout(row, learns, expected):
    assert convert([row], DataConfig(train="x.jsonl"), "x.jsonl", learns) == [expected]


def test_what_nothing_is_learned_from_is_counted():
    rows = [
        {"messages": [{**USER, "id": 7}, ANSWER], "source": "web", "Unnamed: 0": 1},
        {"messages": [USER, ANSWER], "source": None},
    ]
    found = convert_source(rows, DataConfig(train="x.jsonl"), "x.jsonl")
    assert dict(found.left_out) == {"source": 1, "messages.id": 1}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": [USER, ANSWER], "images": ["a.png"]}, "has images, and only text can be trained on"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}, ANSWER]}, "a part of type 'image_url'"),
        ({"messages": [USER, {**ANSWER, "weight": 0.5}]}, "'weight' must be 0 or 1"),
        ({"messages": [USER, {**ANSWER, "weight": 0}]}, "no turn of the assistant's to learn"),
        ({"messages": [SYSTEM, USER, ANSWER], "system": "Words only."}, "a column 'system' and another system message"),
        ({"messages": [USER, ANSWER], "tools": "{"}, "'tools': is not valid JSON"),
        ({"messages": [USER, {"role": "tool", "content": "2"}, ANSWER]}, "the turn of 'assistant' is due"),
    ],
)
def test_what_cannot_be_learned_is_refused(row, message):
    with pytest.raises(DataError, match=message):
        convert([row], DataConfig(train="x.jsonl"), "x.jsonl")


def test_rows_that_do_not_fit_are_counted_or_skipped():
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": ""}, {"prompt": "", "completion": "b"}]
    with pytest.raises(DataError, match=r"row 2: 'completion' is empty \(2 of 3 rows do not fit; data.skip_invalid"):
        convert(rows, DataConfig(train="x.jsonl"), "x.jsonl")
    found = convert_source(rows, DataConfig(train="x.jsonl", skip_invalid=True), "x.jsonl")
    assert found.rows == rows[:1]
    assert found.notes("x.jsonl") == [
        "x.jsonl: skipped 1 rows: 'completion' is empty",
        "x.jsonl: skipped 1 rows: 'prompt' is empty",
    ]
