"""Pairs of technique and adapter that do not work; a test trains all others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sweeper.config.adapter import AnyAdapter, Prefix
from sweeper.config.base import kind_of
from sweeper.config.technique import SFT, Technique


@dataclass(frozen=True)
class Rule:
    """A combination that cannot work, with the reason and the remedy; ``{technique}`` and ``{adapter}`` are kinds."""

    applies: Callable[[Technique, AnyAdapter], bool]
    reason: str


RULES = (
    Rule(
        lambda technique, adapter: adapter.changes_base and technique.has_reference,
        "{technique} compares with the original base, and this init changes the base's weights; use init default, "
        "gaussian or orthogonal",
    ),
    Rule(
        lambda technique, adapter: adapter.changes_base and technique.head == "score",
        "this init changes the base, and PEFT cannot save that change together with a new head; use init default, "
        "gaussian, orthogonal or eva for {technique}",
    ),
    Rule(
        lambda technique, adapter: getattr(adapter, "init", None) == "eva" and not technique.has_token_rows,
        "init eva needs whole rows of tokens, which {technique} does not have; use it with sft, dpo or reward, or use "
        "init default",
    ),
    Rule(
        lambda technique, adapter: (
            not technique.bears_virtual_tokens and adapter.is_prompt_learning and not isinstance(adapter, Prefix)
        ),
        "TRL's trainer for {technique} mistakes the virtual tokens of {adapter} for answers; use prefix, or dpo",
    ),
    Rule(
        lambda technique, adapter: isinstance(technique, SFT) and technique.packing and adapter.is_prompt_learning,
        "technique.packing: adapter {adapter} puts its virtual tokens in front of a row, so only the first of the "
        "packed documents would have them; use `packing: false`",
    ),
    Rule(
        lambda technique, adapter: technique.gradient_checkpointing is True and not adapter.can_checkpoint,
        "technique.gradient_checkpointing: adapter {adapter} cannot train with it, since checkpointing drops the cache "
        "that holds the prefix; use `auto` or false",
    ),
)
"""Combinations that failed in tests with TRL 1.16 and PEFT 0.21."""


def refusal(technique: Technique, adapter: AnyAdapter) -> str | None:
    """Return why a technique cannot train an adapter, and what to do instead, or None."""
    rule = next((rule for rule in RULES if rule.applies(technique, adapter)), None)
    return None if rule is None else rule.reason.format(technique=technique.kind, adapter=kind_of(adapter))
