"""One builder for each row layout: checks a row's fields and returns TRL's columns."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import Any

from sweeper.data.files import ROW_LIMIT_BYTES, Row

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "tool_response": "tool",
}
"""Known roles, those of ShareGPT, OpenAI, Gemini and LLaMA-Factory among them, to the role that chat templates know."""

_REASONING = ("reasoning_content", "reasoning", "thinking")
_MARKS = ("weight", "train")
MESSAGE_KEYS = frozenset(
    ("role", "from", "content", "value", "tool_calls", "name", "tool_call_id", *_REASONING, *_MARKS)
)
"""Keys of a message that are read."""

ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
"""The prompts of Stanford Alpaca (github.com/tatsu-lab/stanford_alpaca), ending in a line break."""

_PAIR = ("chosen", "rejected")
_DUE = {
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user",),
    "call": ("tool", "user", "assistant"),
    "tool": ("assistant", "tool"),
}
"""The roles that may follow each; after a call of a tool its answer, or one that was left out."""

_LABELS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}

# Every function below raises ValueError, with a message for the row's author, if a value does not fit.


def build_text(fields: Mapping[str, Any]) -> Row:
    """Return ``text``."""
    return {"text": text(fields["text"], "text")}


def build_messages(fields: Mapping[str, Any]) -> Row:
    """Return ``messages``, whatever the chat's column is called, and perhaps ``tools``."""
    name = next(iter(fields))
    messages = _with_system(chat(fields[name], name), fields)
    _check_turns(messages, name)
    if not any(message["role"] == "assistant" and message.get("weight") != 0 for message in messages):
        raise ValueError(f"{name!r} has no turn of the assistant's to learn: every one has weight 0")
    return {"messages": messages, **_tools(fields)}


def build_alpaca(fields: Mapping[str, Any]) -> Row:
    """Return ``prompt``, with the instruction and perhaps its input in Alpaca's words, and ``completion``."""
    return {"prompt": _alpaca_prompt(fields), "completion": text(fields["output"], "output")}


def build_prompt_completion(fields: Mapping[str, Any]) -> Row:
    """Return ``prompt`` and ``completion``, and perhaps ``tools``."""
    if isinstance(fields["prompt"], list) != isinstance(fields["completion"], list):
        raise ValueError("'prompt' and 'completion' must both be text or both be lists of messages")
    row = {"prompt": _with_system(_prompt(fields["prompt"]), fields)}
    row["completion"] = _value(fields["completion"], "completion")
    if isinstance(row["prompt"], list):
        _check_turns([*row["prompt"], *row["completion"]], "prompt and completion")
    return {**row, **_tools(fields)}


def build_pair(fields: Mapping[str, Any]) -> Row:
    """Return ``prompt``, ``chosen``, ``rejected`` and perhaps ``margin``; without a prompt, both answers' common start.

    All are texts or all are chats; the answers differ. An ``instruction`` is a prompt;
    ``conversations`` are one beside a single message as each answer, as LLaMA-Factory has them.
    """
    fields = {name: [value] if name in _PAIR and isinstance(value, dict) else value for name, value in fields.items()}
    chosen, rejected = (_value(fields[name], name) for name in _PAIR)
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise ValueError("'chosen' and 'rejected' must both be text or both be lists of messages")
    if chosen == rejected:
        raise ValueError("'chosen' and 'rejected' are the same, so there is nothing to prefer")
    given = fields.get("prompt") or fields.get("conversations")
    if given is None and fields.get("instruction") is not None:
        row = _after_prompt(_asked(fields), chosen, rejected)
    elif given is None:
        row = _without_common(chosen, rejected)
    else:
        row = _after_prompt(given, chosen, rejected)
    row = {**row, "prompt": _with_system(row["prompt"], fields), **_tools(fields)}
    _check_conversations(row, _PAIR)
    if fields.get("margin") is not None:
        row["margin"] = _number(fields["margin"], "margin")
    return row


def build_labelled(fields: Mapping[str, Any]) -> Row:
    """Return ``prompt``, ``completion`` and ``label``, true or false."""
    given = fields["label"]
    label = None if isinstance(given, list | dict) else _LABELS.get(str(given).strip().lower())
    if label is None:
        raise ValueError(f"'label' must be true or false; found {_described(given)}")
    row = {name: _value(fields[name], name) for name in ("prompt", "completion")}
    _check_conversations(row, ("completion",))
    return {**row, "label": label}


def build_prompt(fields: Mapping[str, Any]) -> Row:
    """Return ``prompt`` and, if the row has one, ``reference``."""
    row: Row = {"prompt": _prompt(fields["prompt"])}
    if fields.get("reference") is not None:
        given = fields["reference"]
        row["reference"] = text(given if isinstance(given, list | dict) else str(given), "reference")
    return row


def as_labelled(row: Row) -> list[Row]:
    """Return a labelled answer unchanged; of a pair both answers, the better one labelled true."""
    if "label" in row:
        return [row]
    return [{"prompt": row["prompt"], "completion": row[name], "label": name == "chosen"} for name in _PAIR]


def as_prompt(row: Row) -> list[Row]:
    """Return a row's prompt with the right answer as its reference; a ranking is left out."""
    if "messages" in row:
        row = {"prompt": row["messages"][:-1], "completion": row["messages"][-1:]}
    prompt = {"prompt": row["prompt"]}
    if "reference" in row:
        return [{**prompt, "reference": row["reference"]}]
    if "completion" not in row:
        return [prompt]
    completion = row["completion"]
    return [{**prompt, "reference": completion if isinstance(completion, str) else completion[-1]["content"]}]


def text(value: Any, name: str) -> str:
    """Return a text that is neither empty, nor too long, nor holds what no text file can; a number as it is written."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError(f"{name!r} is empty")
    if not isinstance(value, str):
        raise ValueError(f"{name!r} must be text; found {_described(value)}")
    if "\0" in value:
        raise ValueError(f"{name!r} holds a NUL character, which no text has")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"{name!r} holds half a character (a lone surrogate) at position {error.start}") from error
    if size > ROW_LIMIT_BYTES:
        raise ValueError(f"{name!r} has more than {ROW_LIMIT_BYTES:,} bytes; split the row, or leave it out")
    return value


def chat(value: Any, name: str) -> list[dict[str, Any]]:
    """Return a chat in OpenAI's keys, from those or from ShareGPT's (``from`` and ``value``).

    A message has ``role`` and ``content``, and where it came with them ``tool_calls``, ``reasoning_content``, ``name``,
    ``tool_call_id`` and ``weight`` 0. Keys that are null are those of other messages in a table.
    """
    if not isinstance(value, list) or not value:
        raise ValueError(f"{name!r} must be a list of messages with role and content; found {_described(value)}")
    return [
        _message(message, f"{name!r}, message {number}", f"{name}[{number}]") for number, message in enumerate(value, 1)
    ]


def _message(message: Any, place: str, name: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise ValueError(f"{place}: an object with role and content is due; found {_described(message)}")
    given = {key: value for key, value in message.items() if value is not None}
    role = given.get("role", given.get("from"))
    if not isinstance(role, str) or role not in ROLES:
        shown = repr(role[:40]) if isinstance(role, str) else _described(role)
        raise ValueError(f"{place}: unknown role {shown}; known are {', '.join(ROLES)}")
    content = _joined_parts(given.get("content", given.get("value")), place)
    found: dict[str, Any] = {"role": ROLES[role]}
    calls = given.get("tool_calls") or []
    if role == "function_call":
        calls, content = [_parsed(content, place)], ""
    if calls:
        found["tool_calls"] = [_tool_call(call, place) for call in calls]
    may_be_empty = bool(calls) or found["role"] == "tool"
    found["content"] = (content or "") if may_be_empty and content in (None, "") else text(content, f"{name}.content")
    reasoning = next((given[key] for key in _REASONING if given.get(key)), None)
    if reasoning is not None:
        found["reasoning_content"] = text(reasoning, f"{name}.reasoning_content")
    found |= {key: text(given[key], f"{name}.{key}") for key in ("name", "tool_call_id") if given.get(key)}
    if not _is_learned(given.get("weight", 1), place) or given.get("train") is False:
        found["weight"] = 0
    return found


def _is_learned(weight: Any, place: str) -> bool:
    if weight not in (0, 1):
        raise ValueError(f"{place}: 'weight' must be 0 or 1; found {_described(weight)}")
    return bool(weight)


def _joined_parts(content: Any, place: str) -> Any:
    """Return a content of several parts as one text; only text is trained on."""
    if not isinstance(content, list):
        return content
    kinds = {part.get("type", "text") if isinstance(part, dict) else type(part).__name__ for part in content}
    if kinds - {"text"}:
        raise ValueError(f"{place}: has a part of type {sorted(kinds - {'text'})[0]!r}; only text can be trained on")
    return "".join(part.get("text") or "" for part in content)


def _tool_call(call: Any, place: str) -> dict[str, Any]:
    """Return a tool call as OpenAI writes it, its arguments as an object where they are one."""
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError(f"{place}: a tool call needs the name of a function; found {_described(call)}")
    arguments = function.get("arguments", function.get("parameters", {}))
    if isinstance(arguments, str):
        with suppress(ValueError):  # what is no JSON is learned as it is
            arguments = json.loads(arguments)
    identity = {"id": call["id"]} if call.get("id") else {}
    return {**identity, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _tools(fields: Mapping[str, Any]) -> Row:
    """Return the tools of a row, from a list or from one in JSON."""
    given = fields.get("tools")
    if given in (None, "", []):
        return {}
    tools = _parsed(given, "'tools'") if isinstance(given, str) else given
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise ValueError(f"'tools' must be a list of objects, or one in JSON; found {_described(tools)}")
    return {"tools": tools} if tools else {}


def _parsed(value: Any, place: str) -> Any:
    try:
        return json.loads(value)
    except (TypeError, ValueError) as fault:
        raise ValueError(f"{place}: is not valid JSON: {fault}") from None


def _with_system(prompt: Any, fields: Mapping[str, Any]) -> Any:
    """Return a chat, or a text, that begins with the row's own system prompt."""
    if not str(fields.get("system") or "").strip():
        return prompt
    system = text(fields["system"], "system")
    if isinstance(prompt, str):
        return f"{system}\n\n{prompt}"
    if prompt[0]["role"] == "system":
        if prompt[0]["content"].strip() != system.strip():
            raise ValueError(
                "has a column 'system' and another system message in its conversation; leave one of them out"
            )
        return prompt
    return [{"role": "system", "content": system}, *prompt]


def _alpaca_prompt(fields: Mapping[str, Any]) -> str:
    """Return an instruction with its input, the rounds before it and a system prompt, in Alpaca's words."""
    rounds = [
        ALPACA.format(instruction=text(asked, "history")) + text(answered, "history") + "\n\n"
        for asked, answered in fields.get("history") or ()
    ]
    instruction = text(fields["instruction"], "instruction")
    if str(fields.get("input") or "").strip():
        last = ALPACA_WITH_INPUT.format(instruction=instruction, input=text(fields["input"], "input"))
    else:
        last = ALPACA.format(instruction=instruction)
    return str(_with_system("".join(rounds) + last, fields))


def _asked(fields: Mapping[str, Any]) -> str:
    """Return an instruction with the rounds before it and its input, a paragraph each."""
    rounds = [text(said, "history") for both in fields.get("history") or () for said in both]
    given = [fields["input"]] if str(fields.get("input") or "").strip() else []
    return "\n\n".join([*rounds, text(fields["instruction"], "instruction"), *given]) + "\n\n"


def _after_prompt(prompt: Any, chosen: Any, rejected: Any) -> Row:
    """Return a pair after its prompt; answers that repeat the prompt, as UltraFeedback's do, lose it."""
    asked = _value(prompt, "prompt")
    if isinstance(asked, str) and isinstance(chosen, list):
        asked = [{"role": "user", "content": asked}]
    if isinstance(asked, list) and isinstance(chosen, str):
        chosen, rejected = ([{"role": "assistant", "content": answer}] for answer in (chosen, rejected))
    if isinstance(asked, list) and len(chosen) > len(asked) and chosen[: len(asked)] == rejected[: len(asked)] == asked:
        chosen, rejected = chosen[len(asked) :], rejected[len(asked) :]
    return {"prompt": asked, "chosen": chosen, "rejected": rejected}


def _check_turns(messages: Sequence[Mapping[str, Any]], name: str) -> None:
    """Refuse turns that do not alternate, but for calls of tools, or do not end with the assistant's."""
    before = "system"
    for number, message in enumerate(messages, 1):
        role = message["role"]
        if role == "system" and number > 1:
            raise ValueError(f"{name!r}, message {number}: 'system' may only come first")
        due = _DUE["call" if before == "assistant" and messages[number - 2].get("tool_calls") else before]
        if role not in due and role != "system":
            raise ValueError(f"{name!r}, message {number}: the turn of {due[0]!r} is due; found {role!r}")
        before = role
    if before != "assistant":
        raise ValueError(f"{name!r} must end with the assistant's turn; found {before!r}")


def _check_conversations(row: Row, names: Sequence[str]) -> None:
    kinds = {isinstance(row[name], str) for name in ("prompt", *names)}
    if len(kinds) > 1:
        raise ValueError(f"'prompt' and {' and '.join(map(repr, names))} must all be text or all be lists of messages")
    if isinstance(row["prompt"], list):
        for name in names:
            _check_turns([*row["prompt"], *row[name]], f"prompt and {name}")


def _value(value: Any, name: str) -> Any:
    return chat(value, name) if isinstance(value, list) else text(value, name)


def _prompt(value: Any) -> Any:
    prompt = _value(value, "prompt")
    if isinstance(prompt, list) and prompt[-1]["role"] not in ("user", "tool"):
        raise ValueError(f"'prompt' must end with the user's turn; found {prompt[-1]['role']!r}")
    return prompt


def _without_common(chosen: Any, rejected: Any) -> Row:
    """Split off the common start of two answers: whole turns, or text up to the last space, which the answer keeps."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False))
    length = sum(1 for _ in same)
    if isinstance(chosen, str):
        length = max(0, chosen.rfind(" ", 0, length))
    if not 0 < length < min(len(chosen), len(rejected)):
        raise ValueError("there is no 'prompt', and 'chosen' and 'rejected' do not begin alike; name the prompt")
    return {"prompt": chosen[:length], "chosen": chosen[length:], "rejected": rejected[length:]}


def _number(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):  # of more digits than any real number has
        raise ValueError(f"{name!r} must be a number; found {_described(value)}") from None
    if not math.isfinite(number):
        raise ValueError(f"{name!r} must be a finite number; found {number}")
    return number


def _described(value: Any) -> str:
    """Return a value in a few words, for messages."""
    if isinstance(value, list | dict):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", type(None): "null"}
    shown = repr(value)
    return f"{names.get(type(value), type(value).__name__)}: {shown if len(shown) <= 60 else shown[:57] + '...'}"
