"""Text made safe to store and to show: secrets redacted, control characters removed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from html import escape
from typing import Any
from urllib.parse import quote, quote_plus, unquote

SHORTEST_SECRET = 6
"""Shorter values of secret variables are left alone: they are words such as ``true`` that any text holds."""

_SECRET_VARIABLE = re.compile(r"(^|_)(KEY|SECRET|TOKEN|PASSWORD)$|PASSWORD$", re.IGNORECASE)
# A URL that shows no password, as `sweeper.database_url` writes it, stays as it is.
_HIDDEN = r"(?!\*\*\*@|\$\{[A-Za-z_][A-Za-z0-9_]{0,100}\}@)"
# The repeats are bounded, so that megabytes of hostile text cost linear time.
_URL_PASSWORD = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s:/@]{0,200}:)" + _HIDDEN + r"([^\s/]{1,500})(?=@)")
# SQLAlchemy takes a slash within a password, which RFC 3986 does not.
_DATABASE_PASSWORD = re.compile(
    r"(\b(?:postgres(?:ql)?|mysql|mariadb)[a-z0-9+_]{0,30}://[^\s:/@]{0,200}:)" + _HIDDEN + r"([^\s@]{1,500}+)(?=@)"
)
_PASSWORD_SETTING = re.compile(r"(password=)('[^']{1,500}'|[^\s&'\"]{1,500})", re.IGNORECASE)
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")
_ANSI = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[@-_])")
# Controls but for tab and line feed, and the marks that turn the direction of text around.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def redact(text: str) -> str:
    """Return ``text`` with every secret replaced by the name of its source.

    Secrets are the values of environment variables named ``HF_TOKEN``, ``*_KEY``, ``*_SECRET``, ``*_TOKEN`` or
    ``*_PASSWORD``, however they are escaped in the text; passwords in URLs, those of environment variables also where
    they stand alone; passwords as PostgreSQL's settings name them; and anything shaped like a Hugging Face token.
    """
    return _redacted(text, _present())


def clean(text: object) -> str:
    """Return text without terminal escapes, control characters and direction marks."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", _ANSI.sub("", str(text)))


def _redacted(text: str, secrets: list[tuple[str, str]]) -> str:
    if len(text) < SHORTEST_SECRET:
        return text
    for spelling, name in secrets:
        if spelling in text:
            text = text.replace(spelling, f"[{name} removed]")
    for pattern in (_URL_PASSWORD, _DATABASE_PASSWORD, _PASSWORD_SETTING):
        text = pattern.sub(r"\1[password removed]", text)
    return _HUB_TOKEN.sub("[token removed]", text)


def redact_value(value: Any) -> Any:
    """Return a JSON-like ``value`` with every string in it, keys included, redacted."""
    return _redacted_value(value, _present())


def _redacted_value(value: Any, secrets: list[tuple[str, str]]) -> Any:
    if isinstance(value, str):
        return _redacted(value, secrets)
    if isinstance(value, Mapping):
        return {_redacted(str(key), secrets): _redacted_value(item, secrets) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted_value(item, secrets) for item in value]
    return value


def _present() -> list[tuple[str, str]]:
    """Return the secrets that the environment holds now."""
    return _secrets(tuple(os.environ.items()))


@lru_cache(maxsize=2)
def _secrets(environment: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    """Return (spelling, name) of every secret, longest first, so that one inside another leaves no rest."""
    found = {
        spelling: name
        for name, value in _within(environment)
        if len(value) >= SHORTEST_SECRET
        for spelling in _spellings(value)
    }
    return sorted(found.items(), key=lambda pair: len(pair[0]), reverse=True)


def _within(environment: tuple[tuple[str, str], ...]) -> Iterator[tuple[str, str]]:
    """Yield (name, value) of an environment's secrets; a password within a URL as it is and as the URL means it."""
    for name, value in environment:
        if _SECRET_VARIABLE.search(name):
            yield name, value.strip()
        elif "://" in value and (within := _DATABASE_PASSWORD.search(value) or _URL_PASSWORD.search(value)):
            yield f"{name}'s password", within[2]
            yield f"{name}'s password", unquote(within[2])


def _spellings(value: str) -> set[str]:
    """Return a secret as it is, and as messages, JSON, pages and addresses spell it."""
    if value.isalnum():
        return {value}  # nothing escapes these
    if value.endswith("=") and len(value.rstrip("=")) >= SHORTEST_SECRET:  # base64's filling is often left out
        return {value} | _spellings(value.rstrip("="))
    quoted = {quote(value, safe=""), quote(value), quote_plus(value)}
    return {
        value,
        repr(value)[1:-1],
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        escape(value),
        *quoted,
    }
