"""Rewards in a file, as an export for TRL's command line holds them."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import TypeAdapter

from sweeper.config.rewards import Reward, RewardSources
from sweeper.training.rewards import RewardFunction, build_rewards

_REWARDS: TypeAdapter[tuple[Reward, ...]] = TypeAdapter(tuple[Reward, ...])


def load_rewards(file: Path) -> list[RewardFunction]:
    """Return the functions of the rewards in a JSON file with ``rewards``, ``sources`` and ``device``.

    Raises:
        RewardError: If a function cannot be imported.
        ModelError: If a reward model cannot be loaded.
    """
    stored = json.loads(file.read_text(encoding="utf-8"))
    sources = None if stored["sources"] is None else RewardSources.model_validate(stored["sources"])
    return build_rewards(_REWARDS.validate_python(stored["rewards"]), sources, stored["device"])
