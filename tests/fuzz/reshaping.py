"""Changes plain data part by part, so that what comes out is still a file of its kind and gets past the parser."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

NUMBERS = (0, -1, 1, 2**31, 2**63, 10**30, 10**310, 10**399, 0.5, 1e308, -1e308, 5e-324, 1e-400, 0.1 + 0.2)
SPECIAL = (float("nan"), float("inf"), float("-inf"), None, True, False, "", [], {}, [[]], {"a": None})
TEXTS = (
    "../..", "a/b", "a\\b", "a\nb", "\u202e", "\U0001f600", "\x1b[31m", "${HOME}", "%252e", "'; drop table x; --",
    "<script>", "{{ 1 }}", "{0}", "=1+1", "\ufeffa", "a" * 300, "1e400", "nan", "\x85", "\ud800", "2h",
    "-3d", "r", "9r",
)  # fmt: skip


def reshaped(value: Any, rng: Random, words: Sequence[str]) -> Any:
    """Return plain data with one to three parts changed: replaced, dropped, doubled, or put elsewhere."""
    for _ in range(rng.randint(1, 3)):
        parts = list(_parts(value, ()))
        path, _ = rng.choice(parts)
        value = _changed(value, path, rng, words, [part for _, part in parts])
    return value


def _parts(value: Any, path: tuple[Any, ...]) -> Any:
    yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from _parts(part, (*path, key))


def _changed(value: Any, path: tuple[Any, ...], rng: Random, words: Sequence[str], others: list[Any]) -> Any:
    if not path:
        return _grown(value, rng, words, others)
    key, *rest = path
    whole = dict(value) if isinstance(value, dict) else list(value)
    if rest:
        whole[key] = _changed(value[key], tuple(rest), rng, words, others)
        return whole
    match rng.randrange(5):
        case 0:
            del whole[key]
        case 1 if isinstance(whole, dict):
            whole[_word(rng, words)] = whole.pop(key)
        case 2:
            whole[key] = _grown(value[key], rng, words, others)
        case _:
            whole[key] = _fresh(value[key], rng, words, others)
    return whole


def _grown(value: Any, rng: Random, words: Sequence[str], others: list[Any]) -> Any:
    """Return a value with more in it, or something else where it can hold nothing."""
    if isinstance(value, dict):
        return {**value, _word(rng, words): _fresh(None, rng, words, others)}
    if isinstance(value, list):
        return [*value, _fresh(value[0] if value else None, rng, words, others)]
    return rng.choice(([value], {_word(rng, words): value}))


def _fresh(former: Any, rng: Random, words: Sequence[str], others: list[Any]) -> Any:
    if isinstance(former, int | float) and abs(former) < 1e300 and rng.random() < 0.5:
        return rng.choice((former * 10**9, -former, former + 0.5, former / 7, str(former)))
    kind = rng.randrange(5)
    if kind == 0:
        return rng.choice(others)
    return rng.choice((NUMBERS, SPECIAL, TEXTS, words)[kind - 1])


def _word(rng: Random, words: Sequence[str]) -> str:
    return rng.choice(words if rng.random() < 0.9 else TEXTS)
