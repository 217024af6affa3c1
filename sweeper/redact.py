"""Keep secrets out: everything of free form passes through here before it is stored or shown."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

SHORTEST_SECRET = 6
"""Shorter values of secret variables are left alone: they are words such as ``true`` that any text holds."""

_SECRET_VARIABLE = re.compile(r"(^|_)(KEY|SECRET|TOKEN|PASSWORD)$|PASSWORD$", re.IGNORECASE)
# The repeats are bounded, so that megabytes of hostile text cost linear time.
_URL_PASSWORD = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s:/@]{0,200}:)[^\s/]{1,500}(?=@)")
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")


def redact(text: str) -> str:
    """Return ``text`` with every secret replaced by the name of where it came from.

    Secrets are the values of environment variables named ``HF_TOKEN``, ``*_KEY``, ``*_SECRET``, ``*_TOKEN`` or
    ``*_PASSWORD``, passwords in URLs, and anything shaped like a Hugging Face token.
    """
    for name, value in _secrets():
        text = text.replace(value, f"[{name} removed]")
    text = _URL_PASSWORD.sub(r"\1[password removed]", text)
    return _HUB_TOKEN.sub("[token removed]", text)


def redact_value(value: Any) -> Any:
    """Return a JSON-like ``value`` with every string in it, keys included, redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact(str(key)): redact_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_value(item) for item in value]
    return value


def _secrets() -> list[tuple[str, str]]:
    """Return (name, value) of the secret variables, longest first, so that one inside another leaves no rest."""
    found = [
        (name, value)
        for name, value in os.environ.items()
        if len(value.strip()) >= SHORTEST_SECRET and _SECRET_VARIABLE.search(name)
    ]
    return sorted(found, key=lambda pair: len(pair[1]), reverse=True)
