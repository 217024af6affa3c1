"""Column types that make every stored value safe: times in UTC, numbers that may be NaN, text without secrets."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Dialect, Float, String, Text
from sqlalchemy.types import TypeDecorator

from sweeper.errors import DatabaseError
from sweeper.redact import redact, redact_value


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, stored in UTC and read back aware; one without a zone is taken as UTC."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return what is stored: UTC without its zone, which SQLite cannot keep."""
        if value is None or value.tzinfo is None:
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the aware datetime."""
        return None if value is None else value.replace(tzinfo=UTC)


class OptionalNumber(TypeDecorator[float]):
    """A float or None: NaN, which SQLite stores as NULL, becomes None in every database."""

    impl = Float
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | None:
        """Return the number, or None for NaN."""
        return None if value is None or math.isnan(value) else float(value)


class Number(OptionalNumber):
    """A float that is never absent: NULL, which SQLite stores for NaN, reads back as NaN."""

    cache_ok = True

    def process_result_value(self, value: float | None, dialect: Dialect) -> float:
        """Return the number, NaN and infinities included."""
        return math.nan if value is None else value


class Word(TypeDecorator[str]):
    """Text that is stored unchanged or not at all: SQLite refuses what PostgreSQL does."""

    impl = String
    cache_ok = True

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return the text.

        Raises:
            DatabaseError: If it is too long, or has characters that a database refuses.
        """
        if value is not None and len(value) > self.limit:
            raise DatabaseError(f"{value[:60]!r}... has {len(value)} characters; {self.limit} can be stored")
        if value is not None and storable(value) != value:
            raise DatabaseError(f"{value!r:.120} has NUL characters or lone surrogates, which cannot be stored")
        return value

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        """Return the type of a search text: it may be any text, and is not found if it cannot be stored."""
        return SearchText() if isinstance(value, str) else super().coerce_compared_value(op, value)


class SearchText(TypeDecorator[str]):
    """Any text that a ``Word`` is compared with."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return the text as a database takes it."""
        return None if value is None else storable(value)


class FreeText(TypeDecorator[str]):
    """Text of any origin: secrets removed, unstorable characters replaced, cut at ``limit`` characters."""

    impl = Text
    cache_ok = True

    def __init__(self, limit: int | None = None) -> None:
        super().__init__()
        self.limit = limit

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return the text as it is stored."""
        return None if value is None else shortened(storable(redact(value)), self.limit)


class Json(TypeDecorator[Any]):
    """A JSON value: secrets removed, NaN and infinities as null; above ``limit`` characters only its size is kept."""

    impl = Text
    cache_ok = True

    def __init__(self, limit: int | None = None) -> None:
        super().__init__()
        self.limit = limit

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Return the value as JSON text with sorted keys."""
        if value is None:
            return None
        text = storable(json.dumps(_finite(redact_value(value)), ensure_ascii=False, sort_keys=True, allow_nan=False))
        if self.limit is not None and len(text) > self.limit:
            return json.dumps({"omitted_characters": len(text)})
        return text

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Return the parsed value."""
        return None if value is None else json.loads(value)


def storable(text: str) -> str:
    """Return ``text`` without what a database refuses: NUL characters and lone surrogates."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")


def shortened(text: str, limit: int | None) -> str:
    """Return ``text``, cut to ``limit`` characters with a note of how many there were."""
    if limit is None or len(text) <= limit:
        return text
    note = f" ... [cut from {len(text)} characters]"
    return text[: limit - len(note)] + note


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
