"""Rewards of answers, one class each, tagged by ``kind``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, field_validator

from sweeper.config.adapter import Adapter
from sweeper.config.base import Frozen, word_is_kind
from sweeper.config.model import ModelConfig


class _Reward(Frozen):
    weight: float = 1.0


class ExactMatchReward(_Reward):
    """1 if the answer equals the row's reference, ignoring white space at both ends, else 0."""

    kind: Literal["exact_match"] = "exact_match"


class LengthReward(_Reward):
    """1 for an answer of ``target`` characters, falling to 0 at none or at twice as many."""

    kind: Literal["length"] = "length"
    target: int = Field(ge=1)


class RegexReward(_Reward):
    """1 if the whole answer matches a regular expression, else 0.

    The syntax is that of the module ``regex``, without approximate matches. A match that takes longer than a second
    counts as none: nested repetitions can take for ever.
    """

    kind: Literal["regex"] = "regex"
    pattern: str

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        from sweeper.config.syntax import pattern_fault  # imported late: few studies need it

        if fault := pattern_fault(pattern):
            raise ValueError(f"is not a regular expression: {fault}")
        return pattern


class JsonSchemaReward(_Reward):
    """1 if the answer is JSON that a schema (json-schema.org) accepts, else 0."""

    model_config = ConfigDict(populate_by_name=True)

    kind: Literal["json_schema"] = "json_schema"
    schema_: dict[str, Any] = Field(alias="schema")

    @field_validator("schema_")
    @classmethod
    def _is_schema(cls, schema: dict[str, Any]) -> dict[str, Any]:
        from sweeper.config.syntax import schema_fault  # imported late: few studies need it

        if fault := schema_fault(schema):
            raise ValueError(f"is not a JSON schema: {fault}")
        return schema


class FunctionReward(_Reward):
    """A user's function, ``module:function``, called as TRL calls reward functions.

    It gets ``prompts``, ``completions`` (texts) and, if the rows have one, ``reference``, all by name and as lists,
    and returns one number per answer. The module is looked up in the study file's folder first.
    """

    kind: Literal["function"] = "function"
    function: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")


class AdapterReward(_Reward):
    """The score of a registered reward model, by default of its newest version."""

    kind: Literal["adapter"] = "adapter"
    name: str = Field(min_length=1)
    version: int | None = Field(default=None, ge=1)


Reward = Annotated[
    ExactMatchReward | LengthReward | RegexReward | JsonSchemaReward | FunctionReward | AdapterReward,
    Field(discriminator="kind"),
    BeforeValidator(word_is_kind),
]


class RewardModelSource(Frozen):
    """A reward model from the registry.

    Attributes:
        asked: The version that the study names; None for the newest.
        version: The version that was found.
        folder: Its adapter, or the whole model if every weight was trained.
        base: The folder of the adapter's base model.
        adapter: Its kind of adapter, which also determines how the base is quantised.
        max_length: The longest text that it learned from, in tokens.
    """

    name: str
    asked: int | None
    version: int
    folder: Path
    base: Path
    base_config: ModelConfig
    adapter: Adapter
    max_length: int


class RewardSources(Frozen):
    """The locations of reward models and functions, resolved when the study began."""

    study_folder: Path
    models: tuple[RewardModelSource, ...] = ()

    def model(self, reward: AdapterReward) -> RewardModelSource:
        """Return the model of a reward."""
        return next(each for each in self.models if (each.name, each.asked) == (reward.name, reward.version))
