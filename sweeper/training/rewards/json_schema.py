"""The reward of answers that are JSON of a given form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from sweeper.config.rewards import JsonSchemaReward, RewardSources
from sweeper.errors import RewardError
from sweeper.training.rewards import Call


def json_schema(reward: JsonSchemaReward, sources: RewardSources | None, device: str) -> Call:
    """Return 1 where the schema accepts the answer, else 0; what the schema refers to is never fetched."""
    validator = validator_for(reward.schema_)(reward.schema_, registry=Registry())

    def accepts(text: str) -> bool:
        try:
            return bool(validator.is_valid(json.loads(text, parse_constant=_refuse)))
        except (ValueError, RecursionError):
            return False
        except Unresolvable as error:
            raise RewardError(f"reward json_schema: the schema refers to what is not in it: {error}") from error

    def call(completions: Sequence[str], **_: Any) -> list[float]:
        return [float(accepts(text)) for text in completions]

    return call


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")  # Python reads NaN and Infinity, the standard has neither
