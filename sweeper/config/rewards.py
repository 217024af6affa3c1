"""Rewards of answers, one class each, tagged by ``kind``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, field_validator

from sweeper.config.adapter import Adapter
from sweeper.config.base import Frozen, word_is_kind
from sweeper.config.model import ModelConfig
from sweeper.config.patterns import pattern_fault


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
    """1 where the whole answer has the form of a regular expression, else 0.

    The whole syntax of the module ``regex`` but its approximate matches. An answer that takes longer than a second to
    decide counts as none: nested repetitions can take for ever.
    """

    kind: Literal["regex"] = "regex"
    pattern: str

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        if fault := pattern_fault(pattern):
            raise ValueError(f"is no regular expression: {fault}")
        return pattern


class JsonSchemaReward(_Reward):
    """1 where the answer is JSON that a schema (json-schema.org) accepts, else 0."""

    model_config = ConfigDict(populate_by_name=True)

    kind: Literal["json_schema"] = "json_schema"
    schema_: dict[str, Any] = Field(alias="schema")

    @field_validator("schema_")
    @classmethod
    def _is_schema(cls, schema: dict[str, Any]) -> dict[str, Any]:
        from sweeper.config.schemas import schema_fault  # imported late: few studies need it

        if fault := schema_fault(schema):
            raise ValueError(f"is no JSON schema: {fault}")
        return schema


class FunctionReward(_Reward):
    """A function of the user's own, ``module:function``, called as TRL calls reward functions.

    It gets ``prompts``, ``completions`` (texts) and, where the rows have one, ``reference``, all by name and as lists,
    and returns one number an answer. The module is looked for in the study file's folder first.
    """

    kind: Literal["function"] = "function"
    function: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")


class AdapterReward(_Reward):
    """The score of a registered reward model; the newest version where none is named."""

    kind: Literal["adapter"] = "adapter"
    name: str = Field(min_length=1)
    version: int | None = Field(default=None, ge=1)


Reward = Annotated[
    ExactMatchReward | LengthReward | RegexReward | JsonSchemaReward | FunctionReward | AdapterReward,
    Field(discriminator="kind"),
    BeforeValidator(word_is_kind),
]
"""The next reward is one more class here and one more function in ``training.rewards``."""


class RewardModelSource(Frozen):
    """A reward model that was found in the registry.

    Attributes:
        name: Its name there.
        asked: The version that the study names; None for the newest there was.
        version: The version that was found.
        folder: Its adapter, or the whole model where every weight was trained.
        base: The folder of the base model that the adapter stands on.
        base_config: How that base is loaded.
        adapter: What kind of adapter it is, which says how the base is quantised.
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
    """Where what rewards are made of was found, when the study began.

    Attributes:
        study_folder: The study file's folder, where modules with functions are looked for first.
        models: The reward models.
    """

    study_folder: Path
    models: tuple[RewardModelSource, ...] = ()

    def model(self, reward: AdapterReward) -> RewardModelSource:
        """Return the model that a reward names."""
        return next(each for each in self.models if (each.name, each.asked) == (reward.name, reward.version))
