"""Pairs of technique and adapter that do not work; every other was seen to train, and a test runs them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sweeper.config.adapter import AnyAdapter, Prefix
from sweeper.config.base import kind_of
from sweeper.config.technique import SFT, Technique


@dataclass(frozen=True)
class Rule:
    """A combination that cannot work.

    Attributes:
        applies: Whether a technique and an adapter are such a combination.
        reason: Why it cannot work, and what to do instead; ``{technique}`` and ``{adapter}`` are their kinds.
    """

    applies: Callable[[Technique, AnyAdapter], bool]
    reason: str


RULES = (
    Rule(
        lambda technique, adapter: adapter.changes_base and technique.has_reference,
        "{technique} compares with the base as it was, and this init takes its start out of the base's weights; use "
        "init default, gaussian or orthogonal",
    ),
    Rule(
        lambda technique, adapter: adapter.changes_base and technique.head == "score",
        "this init changes the base, and PEFT saves no difference to it beside a new head; use init default, gaussian, "
        "orthogonal or eva for {technique}",
    ),
    Rule(
        lambda technique, adapter: getattr(adapter, "init", None) == "eva" and not technique.has_token_rows,
        "init eva looks at whole rows of tokens, which {technique} does not have; use it with sft, dpo or reward, or "
        "init default",
    ),
    Rule(
        lambda technique, adapter: (
            not technique.bears_virtual_tokens and adapter.is_prompt_learning and not isinstance(adapter, Prefix)
        ),
        "TRL's trainer for {technique} takes the virtual tokens of {adapter} for answers; use prefix, or dpo",
    ),
    Rule(
        lambda technique, adapter: isinstance(technique, SFT) and technique.packing and adapter.is_prompt_learning,
        "technique.packing: adapter {adapter} puts its virtual tokens in front of a row, so of packed documents only "
        "the first would have them; use `packing: false`",
    ),
    Rule(
        lambda technique, adapter: technique.gradient_checkpointing is True and not adapter.can_checkpoint,
        "technique.gradient_checkpointing: adapter {adapter} cannot train with it, since checkpointing drops the cache "
        "that the prefix lives in; use `auto` or false",
    ),
)
"""What was seen not to work, with TRL 1.16 and PEFT 0.21."""


def refusal(technique: Technique, adapter: AnyAdapter) -> str | None:
    """Return why a technique cannot train an adapter, and what to do instead; None where it can."""
    rule = next((rule for rule in RULES if rule.applies(technique, adapter)), None)
    return None if rule is None else rule.reason.format(technique=technique.kind, adapter=kind_of(adapter))
