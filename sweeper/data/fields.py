"""The values that rows are made of: texts and chats, checked one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.data.limits import ROW_LIMIT_BYTES

ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}
"""Known roles, ShareGPT's among them, to the role that chat templates know."""


def chat(value: Any, name: str) -> list[dict[str, str]]:
    """Return a chat as role and content, from OpenAI's keys or from ShareGPT's (``from`` and ``value``).

    Raises:
        ValueError: If it is no list of messages with known roles and text.
    """
    if not isinstance(value, list) or not value:
        raise ValueError(f"{name!r} must be a list of messages with role and content; found {described(value)}")
    messages = []
    for number, message in enumerate(value, 1):
        place = f"{name!r}, message {number}"
        if not isinstance(message, dict):
            raise ValueError(f"{place}: an object with role and content is due; found {described(message)}")
        role = message.get("role", message.get("from"))
        if not isinstance(role, str) or role not in ROLES:
            shown = repr(role[:40]) if isinstance(role, str) else described(role)
            raise ValueError(f"{place}: unknown role {shown}; known are {', '.join(ROLES)}")
        content = text(message.get("content", message.get("value")), f"{name}[{number}].content")
        messages.append({"role": ROLES[role], "content": content})
    return messages


def check_turns(messages: Sequence[Mapping[str, str]], name: str) -> None:
    """Hold that turns alternate and that the assistant has the last word.

    Raises:
        ValueError: If they do not.
    """
    roles = [message["role"] for message in messages]
    for number, role in enumerate(roles, 1):
        if role == "system" and number > 1:
            raise ValueError(f"{name!r}, message {number}: 'system' may only come first")
    first = 1 if roles[0] == "system" else 0
    for index, role in enumerate(roles[first:]):
        due = ("user", "assistant")[index % 2]
        if role != due:
            raise ValueError(f"{name!r}, message {first + index + 1}: the turn of {due!r} is due; found {role!r}")
    if roles[-1] != "assistant":
        raise ValueError(f"{name!r} must end with the assistant's turn; found {roles[-1]!r}")


def text(value: Any, name: str) -> str:
    """Return a text.

    Raises:
        ValueError: If it is none, or is empty, too long, or holds what no text file can.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError(f"{name!r} is empty")
    if not isinstance(value, str):
        raise ValueError(f"{name!r} must be text; found {described(value)}")
    if "\0" in value:
        raise ValueError(f"{name!r} holds a NUL character, which no text has")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"{name!r} holds half a character (a lone surrogate) at position {error.start}") from error
    if size > ROW_LIMIT_BYTES:
        raise ValueError(f"{name!r} has more than {ROW_LIMIT_BYTES:,} bytes; split the row, or leave it out")
    return value


def described(value: Any) -> str:
    """Return a value in a few words, for messages."""
    if isinstance(value, list | dict):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", type(None): "null"}
    shown = repr(value)
    return f"{names.get(type(value), type(value).__name__)}: {shown if len(shown) <= 60 else shown[:57] + '...'}"
