"""Regular expressions of a study file: checked with the module that runs them."""

from __future__ import annotations

import regex

_BRACES = regex.compile(r"\\[pPN]\{[^}]*\}|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|(?P<fuzzy>\{[\d<=+,]*[deis])", regex.DOTALL)
"""Escapes and sets, where braces mean nothing, and braces that ``regex`` takes for an approximate match."""


def pattern_fault(pattern: object) -> str | None:
    """Return why a regular expression cannot be used, or None where it can."""
    if not isinstance(pattern, str):
        return "it is no text; put it in quotes"  # a key that YAML reads as a number
    fuzzy = next((found for found in _BRACES.finditer(pattern) if found["fuzzy"]), None)
    if fuzzy is not None:
        place = f"{{ at position {fuzzy.start()}"
        return f"{place} asks for an approximate match, which is not allowed; write \\{{ for a brace"
    try:
        regex.compile(pattern)
    except (regex.error, OverflowError, LookupError) as error:
        return str(error)
    except RecursionError:
        return "it is nested too deep"
    return None
