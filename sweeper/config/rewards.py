"""What an answer earns: one class a reward, tagged by ``kind``."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag, field_validator

from sweeper.config.base import Frozen, kind_of, word_is_kind


class _Reward(Frozen):
    """What all rewards share: how much they count beside the others."""

    weight: float = 1.0


class ExactMatchReward(_Reward):
    """1 where the answer is the row's reference, white space at both ends apart, else 0."""

    kind: Literal["exact_match"] = "exact_match"


class LengthReward(_Reward):
    """1 for an answer of ``target`` characters, falling to 0 at none or at twice as many."""

    kind: Literal["length"] = "length"
    target: int = Field(ge=1)


class RegexReward(_Reward):
    """1 where the whole answer has the form of a regular expression, else 0."""

    kind: Literal["regex"] = "regex"
    pattern: str

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        return pattern


class JsonSchemaReward(_Reward):
    """1 where the answer is JSON that a schema accepts, else 0."""

    model_config = ConfigDict(populate_by_name=True)

    kind: Literal["json_schema"] = "json_schema"
    schema_: dict[str, Any] = Field(alias="schema")


class FunctionReward(_Reward):
    """A function of the user's own, ``module:function``, called as TRL calls reward functions.

    It gets ``prompts``, ``completions`` (texts) and the row's other columns by name, and returns one number a row. The
    module is looked for in the study file's folder first.
    """

    kind: Literal["function"] = "function"
    function: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")


class AdapterReward(_Reward):
    """The score of a registered reward model; the newest version where none is named."""

    kind: Literal["adapter"] = "adapter"
    name: str = Field(min_length=1)
    version: int | None = Field(default=None, ge=1)


Reward = Annotated[
    Annotated[ExactMatchReward, Tag("exact_match")]
    | Annotated[LengthReward, Tag("length")]
    | Annotated[RegexReward, Tag("regex")]
    | Annotated[JsonSchemaReward, Tag("json_schema")]
    | Annotated[FunctionReward, Tag("function")]
    | Annotated[AdapterReward, Tag("adapter")],
    Discriminator(kind_of),
    BeforeValidator(word_is_kind),
]
"""The next reward is one more class here and one more function in ``training.rewards``."""
