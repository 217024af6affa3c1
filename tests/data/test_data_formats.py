"""Recognising layouts, and what each row that does not fit is told."""

from __future__ import annotations

from typing import Any

import pytest

from sweeper.config.data import DataConfig
from sweeper.data.formats import convert, kind_of
from sweeper.errors import DataError

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Two and two?"}
ASSISTANT = {"role": "assistant", "content": "Four."}
CHAT = [SYSTEM, USER, ASSISTANT]


def run(*rows: dict[str, Any], **config: Any) -> list[dict[str, Any]]:
    return convert(rows, DataConfig(train=("t.jsonl",), **config), "t.jsonl")


def fault(*rows: dict[str, Any], **config: Any) -> str:
    with pytest.raises(DataError) as caught:
        run(*rows, **config)
    return str(caught.value)


@pytest.mark.parametrize(
    ("row", "expected", "kind"),
    [
        ({"messages": CHAT, "id": 7}, {"messages": CHAT}, "messages"),
        (
            {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
            {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
            "messages",
        ),
        ({"prompt": "a", "completion": " b", "text": "a b"}, {"prompt": "a", "completion": " b"}, "prompt_completion"),
        (
            {"prompt": [USER], "completion": [ASSISTANT]},
            {"prompt": [USER], "completion": [ASSISTANT]},
            "prompt_completion_messages",
        ),
        ({"text": "Once"}, {"text": "Once"}, "text"),
    ],
)
def test_layouts_are_recognised(row: dict[str, Any], expected: dict[str, Any], kind: str) -> None:
    assert run(row) == [expected]
    assert kind_of(run(row)[0]) == kind


def test_alpaca_with_and_without_input() -> None:
    plain, with_input = run(
        {"instruction": "Say {hi}", "output": "hi", "text": "..."},
        {"instruction": "Add", "input": "1 2", "output": "3"},
    )
    assert plain["prompt"].endswith("### Instruction:\nSay {hi}\n\n### Response:\n")
    assert with_input["prompt"].endswith("### Instruction:\nAdd\n\n### Input:\n1 2\n\n### Response:\n")
    assert [plain["completion"], with_input["completion"]] == ["hi", "3"]
    assert run({"instruction": "Say {hi}", "input": None, "output": "hi"}) == [plain]


def test_columns_are_renamed_and_decide_the_layout() -> None:
    row = {"question": "a", "answer": "b", "text": "c", "messages": CHAT}
    assert run(row, columns={"prompt": "question", "completion": "answer"}) == [{"prompt": "a", "completion": "b"}]
    assert run(row, columns={"text": "answer"}) == [{"text": "b"}]
    assert run(row, format="text") == [{"text": "c"}]


@pytest.mark.parametrize(
    ("rows", "config", "told"),
    [
        ([{"textt": "a"}], {}, "Did you mean data.columns: {text: textt}?"),
        ([{"promt": "a", "completion": "b"}], {}, "Did you mean data.columns: {prompt: promt}?"),
        ([{"question": "a", "answer": "b"}], {}, "found 'question', 'answer'. Name yours in the study file, "),
        ([{"text": "a"}], {"format": "alpaca"}, "needs the columns instruction + output; found 'text'"),
        ([{"a": "x"}], {"columns": {"prompts": "a"}}, "'prompts' is no column that is looked for; did you mean"),
        (
            [{"question": "a", "answer": "b"}],
            {"columns": {"prompt": "qestion", "completion": "answer"}},
            "row 1: the column 'qestion' is missing; did you mean 'question'? there are 'question', 'answer'",
        ),
        ([{"prompt": "a", "completion": "b"}, {"text": "c"}], {}, "row 2: the column 'prompt' is missing"),
        ([{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": " "}], {}, "row 2: 'completion' is empty"),
        ([{"prompt": "", "completion": "b"}], {}, "row 1: 'prompt' is empty"),
        ([{"prompt": None, "completion": "b"}], {}, "row 1: 'prompt' is empty"),
        ([{"text": True}], {}, "'text' must be text; found true or false: True"),
        ([{"text": {"a": 1}}], {}, "'text' must be text; found an object of 1"),
        ([{"text": "a\0b"}], {}, "'text' holds a NUL character"),
        ([{"text": "ab\ud800"}], {}, "'text' holds half a character (a lone surrogate) at position 2"),
        ([{"text": "x" * 5_000_001}], {}, "'text' has more than 5,000,000 bytes"),
        ([{"prompt": "a", "completion": [ASSISTANT]}], {}, "must both be text or both be lists of messages"),
        (
            [{"prompt": CHAT, "completion": [ASSISTANT]}],
            {},
            "'prompt' must end with the user's turn; found 'assistant'",
        ),
        (
            [{"prompt": "a", "completion": "b"}, {"prompt": [USER], "completion": [ASSISTANT]}],
            {},
            "row 2: mixed layouts: this row is prompt_completion_messages, the rows before are prompt_completion",
        ),
        (
            [{"messages": "hello"}],
            {},
            "'messages' must be a list of messages with role and content; found text: 'hello'",
        ),
        ([{"messages": []}], {}, "'messages' must be a list of messages with role and content; found a list of 0"),
        ([{"messages": ["hello"]}], {}, "'messages', message 1: an object with role and content is due; found text"),
        (
            [{"messages": [USER, {"role": "narrator", "content": "x"}]}],
            {},
            "'messages', message 2: unknown role 'narrator'; known are system, developer, user, human, assistant, gpt",
        ),
        ([{"messages": [USER, {"role": "assistant"}]}], {}, "'messages[2].content' is empty"),
        ([{"messages": [USER, SYSTEM, ASSISTANT]}], {}, "'messages', message 2: 'system' may only come first"),
        ([{"messages": [ASSISTANT]}], {}, "'messages', message 1: the turn of 'user' is due; found 'assistant'"),
        (
            [{"messages": [SYSTEM, USER, USER]}],
            {},
            "'messages', message 3: the turn of 'assistant' is due; found 'user'",
        ),
        ([{"messages": [*CHAT, USER]}], {}, "'messages' must end with the assistant's turn; found 'user'"),
        ([{"messages": [SYSTEM]}], {}, "'messages' must end with the assistant's turn; found 'system'"),
        ([], {}, "t.jsonl: has no rows"),
    ],
)
def test_rows_that_do_not_fit(rows: list[dict[str, Any]], config: dict[str, Any], told: str) -> None:
    message = fault(*rows, **config)
    assert told in message
    assert message.startswith(("t.jsonl: ", "data.columns: "))
    assert len(message) < 600


def test_many_long_column_names_do_not_flood_the_message() -> None:
    assert len(fault({f"{'c' * 1000}{number}": 1 for number in range(1000)})) < 2000
