"""Registered reward models, as rewards of policies name them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sweeper.config.rewards import AdapterReward, Reward, RewardModelSource, RewardSources
from sweeper.errors import RegistryError
from sweeper.paths import Home
from sweeper.registry.files import differences
from sweeper.registry.registry import Registry
from sweeper.registry.version import trial_spec
from sweeper.store import Database


def reward_sources(rewards: Sequence[Reward], study_folder: Path, home: Home) -> RewardSources:
    """Find the sources of a study's rewards.

    Raises:
        RegistryError: If a reward model is not registered, is not a reward model, or has changed since.
    """
    named = [reward for reward in rewards if isinstance(reward, AdapterReward)]
    if not named:
        return RewardSources(study_folder=study_folder)
    if not Database.exists(home.database):
        raise RegistryError(f"the reward model {named[0].name!r} is not registered: {home.folder} has no adapters yet")
    with Database.open(home.database, create=False) as database:
        models = tuple(_reward_model(reward, home, database) for reward in named)
    return RewardSources(study_folder=study_folder, models=models)


def require_unchanged(sources: RewardSources | None, home: Home, database: Database) -> None:
    """Refuse reward models that are not as they were registered.

    Raises:
        RegistryError: If one has changed or is gone.
    """
    for model in () if sources is None else sources.models:
        version = Registry(home, database).get(model.name, model.version)
        if wrong := differences(model.folder, version.files):
            raise RegistryError(f"the reward model {version} is not as it was registered: {'; '.join(wrong)}")


def _reward_model(reward: AdapterReward, home: Home, database: Database) -> RewardModelSource:
    registry = Registry(home, database)
    version = registry.get(reward.name, reward.version)
    registry.verify(version.name, version.version)
    spec = trial_spec(home, version)
    if spec.technique.kind != "reward":
        raise RegistryError(
            f"technique.rewards: {version} was trained with {spec.technique.kind} and gives no rewards; name an "
            "adapter that a study of technique reward registered"
        )
    return RewardModelSource(
        name=version.name,
        asked=reward.version,
        version=version.version,
        folder=version.folder,
        base=spec.model_folder,
        base_config=spec.model,
        adapter=spec.adapter,
        max_length=spec.technique.max_length,
    )
