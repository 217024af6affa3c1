"""The reward of answers that are JSON of a given form."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import regex
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from sweeper.config.rewards import JsonSchemaReward, RewardSources
from sweeper.errors import RewardError
from sweeper.training.rewards import Call, texts

logger = logging.getLogger(__name__)


def json_schema(reward: JsonSchemaReward, sources: RewardSources | None, device: str) -> Call:
    """Return 1 where the schema accepts the answer, else 0; what the schema refers to is never fetched.

    An answer that a pattern takes too long on, or that has numbers too large to compute with, is not accepted.
    """
    validator = extend(validator_for(reward.schema_), _TIMED)(reward.schema_, registry=Registry())

    def accepts(text: str) -> bool:
        try:
            return bool(validator.is_valid(json.loads(text, parse_constant=_refuse, parse_float=_finite)))
        except (ValueError, ArithmeticError, RecursionError):
            return False
        except TimeoutError:
            logger.warning("a pattern of the schema took too long on an answer, which counts as not accepted")
            return False
        except Unresolvable as error:
            raise RewardError(f"reward json_schema: the schema refers to what is not in it: {error}") from error

    def call(completions: Sequence[str], **_: Any) -> list[float]:
        return [float(accepts(text)) for text in completions]

    return call


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")  # Python reads NaN and Infinity, the standard has neither


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is too large")
    return value


def _found(pattern: str, text: str) -> bool:
    """Return whether a pattern is in a text.

    Raises:
        TimeoutError: If that takes too long; the whole answer then fails, whatever ``not`` or ``anyOf`` is around it.
    """
    return regex.search(pattern, text, timeout=texts.MATCH_TIMEOUT_S) is not None


def _pattern(validator: Any, pattern: str, instance: Any, schema: Mapping[str, Any]) -> Iterator[ValidationError]:
    if validator.is_type(instance, "string") and not _found(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(
    validator: Any, patterns: Mapping[str, Any], instance: Any, schema: Mapping[str, Any]
) -> Iterator[ValidationError]:
    if validator.is_type(instance, "object"):
        for pattern, part in patterns.items():
            for name in instance:
                if _found(pattern, name):
                    yield from validator.descend(instance[name], part, path=name, schema_path=pattern)


def _additional_properties(
    validator: Any, others: Any, instance: Any, schema: Mapping[str, Any]
) -> Iterator[ValidationError]:
    if validator.is_type(instance, "object"):
        known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        for name in instance:
            if name not in known and not any(_found(pattern, name) for pattern in patterns):
                yield from validator.descend(instance[name], others, path=name)


_TIMED = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
}
"""The keywords with regular expressions as jsonschema has them, but with a time limit."""
