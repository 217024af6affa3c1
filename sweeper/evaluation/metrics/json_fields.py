"""Metrics of structured answers: valid JSON, and fields equal to those of the reference."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sweeper.errors import DataError
from sweeper.evaluation.metrics.base import FloatArray, MeanMetric

_INVALID = object()
_MISSING = object()


class JSONValidity(MeanMetric):
    """Share of predictions that are one JSON value and nothing else (RFC 8259; no NaN, no text or fences around it)."""

    description = "Share of predictions that parse as JSON."

    def example_score(self, prediction: str, reference: str) -> float:
        """Return 1 where the prediction parses, else 0; the reference does not count."""
        return float(parse_json(prediction) is not _INVALID)


class FieldMatch(MeanMetric):
    """Mean share of a JSON reference's fields that the prediction has with an equal value.

    Fields of nested objects count one by one, a list counts as one value. Numbers are equal by value (1 and 1.0),
    texts by character. Fields that only the prediction has do not count. A prediction that is not a JSON object
    scores 0; a reference without fields is matched by any object.
    """

    description = "Mean share of the reference's JSON fields that the prediction has with an equal value."

    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> FloatArray:
        """Return the share of each example, shape (N, 1).

        Raises:
            DataError: If a reference is not a JSON object.
        """
        for number, reference in enumerate(references, start=1):
            if not isinstance(parse_json(reference), dict):
                raise DataError(
                    f"row {number}: field_match needs references that are JSON objects; found {reference[:80]!r}; "
                    "take field_match out of evaluation.metrics, or correct the row"
                )
        return super().statistics(predictions, references)

    def example_score(self, prediction: str, reference: str) -> float:
        """Return the share of fields found with an equal value."""
        found, expected = parse_json(prediction), parse_json(reference)
        if not isinstance(found, dict):
            return 0.0
        hits = [same_json(_at(found, path), value) for path, value in _fields(expected)]
        return sum(hits) / len(hits) if hits else 1.0


def parse_json(text: str) -> Any:
    """Return the JSON value of a text, or a value that equals no JSON value where the text is not JSON."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return _INVALID


def same_json(left: Any, right: Any) -> bool:
    """Return whether two JSON values are equal; unlike in Python, ``true`` is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same_json, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same_json(left[key], right[key]) for key in left)
    return bool(left == right)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _fields(value: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from _fields(inner, (*path, key))
        else:
            yield (*path, key), inner


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        value = value.get(key, _MISSING) if isinstance(value, dict) else _MISSING
    return value
