"""Rewards that look at the text of an answer alone, or compare it with the row's reference.

White space at both ends of an answer does not count.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import regex as regular_expressions

from sweeper.config.rewards import ExactMatchReward, LengthReward, RegexReward, RewardSources
from sweeper.training.rewards import Call

logger = logging.getLogger(__name__)

MATCH_TIMEOUT_S = 1.0
"""The longest a regular expression may look at one answer: nested repetitions can take for ever."""


def exact_match(reward: ExactMatchReward, sources: RewardSources | None, device: str) -> Call:
    """Return 1 for the reference, else 0."""

    def call(completions: Sequence[str], reference: Sequence[str], **_: Any) -> list[float]:
        return [float(text.strip() == right.strip()) for text, right in zip(completions, reference, strict=True)]

    return call


def length(reward: LengthReward, sources: RewardSources | None, device: str) -> Call:
    """Return 1 at the target, falling evenly to 0 on both sides."""

    def call(completions: Sequence[str], **_: Any) -> list[float]:
        return [max(0.0, 1 - abs(len(text.strip()) - reward.target) / reward.target) for text in completions]

    return call


def regex(reward: RegexReward, sources: RewardSources | None, device: str) -> Call:
    """Return 1 where the whole answer matches; an answer that takes too long to decide does not match."""
    pattern = regular_expressions.compile(reward.pattern)

    def matches(text: str) -> float:
        try:
            return float(pattern.fullmatch(text, timeout=MATCH_TIMEOUT_S) is not None)
        except TimeoutError:
            logger.warning("%r took too long on an answer, which counts as no match", reward.pattern)
            return 0.0

    def call(completions: Sequence[str], **_: Any) -> list[float]:
        return [matches(text.strip()) for text in completions]

    return call
