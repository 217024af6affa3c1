"""Reward functions of a study, as TRL's trainers and the evaluation call them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from sweeper.config.rewards import Reward, RewardSources
from sweeper.errors import RewardError

Call = Callable[..., Sequence[Any]]
"""Takes ``prompts``, ``completions`` (texts) and the rows' columns by name; returns a number an answer."""

BUILDERS = {
    "exact_match": "texts:exact_match",
    "length": "texts:length",
    "regex": "texts:regex",
    "json_schema": "json_schema:json_schema",
    "function": "function:own_function",
    "adapter": "adapter:reward_model",
}
"""Where each reward is built: the file in this folder and the function in it, given the reward, where its parts were
found, and the device."""

_OF_THE_TRAINER = ("completion_ids", "trainer_state", "log_extra", "log_metric")
"""What TRL passes beside a row's columns; left out, so that a reward means the same in training and evaluation."""


class RewardFunction:
    """One reward of a study, called as TRL calls reward functions; it keeps no state between calls.

    Attributes:
        weight: How much it counts beside the others.
    """

    def __init__(self, name: str, weight: float, call: Call) -> None:
        self.__name__ = name  # what TRL's logs call it
        self.weight = weight
        self._call = call

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        """Return what each answer earns; of a conversation the answer is the last turn's text.

        Raises:
            RewardError: If it does not give one finite number an answer.
        """
        texts = [answer if isinstance(answer, str) else answer[-1]["content"] for answer in completions]
        own = {name: values for name, values in columns.items() if name not in _OF_THE_TRAINER}
        found = self._call(prompts=prompts, completions=texts, **own)
        return self._numbers(found, len(prompts))

    def _numbers(self, found: Sequence[Any], wanted: int) -> list[float]:
        try:
            numbers = [float(value) for value in found]
        except (TypeError, ValueError) as error:
            raise RewardError(f"reward {self.__name__} must return a number for each answer: {error}") from error
        if len(numbers) != wanted:
            raise RewardError(f"reward {self.__name__} returned {len(numbers)} numbers for {wanted} answers")
        odd = next((number for number in numbers if not math.isfinite(number)), None)
        if odd is not None:
            raise RewardError(f"reward {self.__name__} returned {odd}; it must return finite numbers")
        return numbers


def build_rewards(rewards: Sequence[Reward], sources: RewardSources | None, device: str) -> list[RewardFunction]:
    """Return the functions of a study's rewards, in their order; reward models go to ``device``.

    Raises:
        RewardError: If a function cannot be imported.
        ModelError: If a reward model cannot be loaded.
    """
    functions = []
    for name, reward in zip(unique_names(rewards), rewards, strict=True):
        file, function = BUILDERS[reward.kind].split(":")
        call = getattr(import_module(f"{__name__}.{file}"), function)(reward, sources, device)
        functions.append(RewardFunction(name, reward.weight, call))
    return functions


def unique_names(rewards: Sequence[Reward]) -> list[str]:
    """Return a name for each reward: its kind, with a number where a kind comes again."""
    kinds = [reward.kind for reward in rewards]
    before = [kinds[:index].count(kind) for index, kind in enumerate(kinds)]
    return [kind if count == 0 else f"{kind}_{count + 1}" for kind, count in zip(kinds, before, strict=True)]


def earned(
    rewards: Sequence[RewardFunction],
    prompts: Sequence[Any],
    completions: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
) -> list[float]:
    """Return what each answer earns in all: the sum of its rewards with their weights."""
    each = [reward(prompts, completions, **columns) for reward in rewards]
    return [sum(reward.weight * of[i] for reward, of in zip(rewards, each, strict=True)) for i in range(len(prompts))]
