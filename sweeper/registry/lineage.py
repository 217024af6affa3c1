"""The lineage of an adapter version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sweeper.config.pipeline import STARTED_FROM
from sweeper.errors import RegistryError
from sweeper.files.atomic import read_json
from sweeper.paths import Home, TrialPaths
from sweeper.store import Database


@dataclass(frozen=True)
class Lineage:
    """Everything needed to reproduce an adapter.

    Attributes:
        config_sha256: Hash of the study's resolved configuration.
        base_model_fingerprint: Hash of the base model's weights and config.
        data_sha256: Hash of each split.
        hyperparameters: The trial's, resolved.
        seeds: The study's and the trial's seed.
        packages: Versions of the packages that matter.
        parent: The version of the same name that it was to replace; None for a first one.
        built_on: The registered adapters that it needed: the one merged into its base, and the reward models that it
            was optimised against; each ``NAME@VERSION``.
        initial_trial: The trial whose weights it started from; None if it started from the base model.
    """

    study: str
    trial: int
    config_sha256: str
    base_model: str
    base_model_fingerprint: str
    data_sha256: dict[str, str]
    hyperparameters: dict[str, Any]
    seeds: dict[str, int]
    sweeper_version: str
    packages: dict[str, str]
    parent: int | None
    built_on: tuple[str, ...] = ()
    initial_trial: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "built_on", tuple(self.built_on))  # JSON gives it back as a list


def trace(home: Home, database: Database, study: str, trial: int, parent: int | None) -> Lineage:
    """Return the lineage of a trial's adapter, from the database and the files of its study.

    Raises:
        StudyStateError: If study or trial do not exist.
        RegistryError: If the trial's specification is damaged.
    """
    of = database.studies.get(study)
    which = database.trials.get(study, trial)
    return Lineage(
        study=study,
        trial=trial,
        config_sha256=hashlib.sha256(json.dumps(of.config, sort_keys=True).encode()).hexdigest(),
        base_model=which.base_model or of.base_model,
        base_model_fingerprint=which.base_model_fingerprint or of.base_model_fingerprint,
        data_sha256=of.data_sha256,
        hyperparameters=which.parameters,
        seeds={"study": of.seed, "trial": which.seed},
        sweeper_version=of.sweeper_version,
        packages=of.packages,
        parent=parent,
        built_on=built_on(of.config, which.base_model or of.base_model),
        initial_trial=initial_trial(home, study, trial),
    )


def built_on(config: Mapping[str, Any], base_model: str) -> tuple[str, ...]:
    """Return the registered adapters that a study started from or was rewarded by, each ``NAME@VERSION``."""
    begun_from = [base_model.removeprefix(STARTED_FROM)] if base_model.startswith(STARTED_FROM) else []
    rewards = config.get("technique", {}).get("rewards") or ()
    rewarded_by = [f"{each['name']}@{each['version']}" for each in rewards if each["kind"] == "adapter"]
    return (*begun_from, *rewarded_by)


def initial_trial(home: Home, study: str, trial: int) -> int | None:
    """Return the trial whose weights a trial started from; None if there is none, or its files are gone.

    Raises:
        RegistryError: If the trial's specification is damaged.
    """
    path = home.study(study).trial(trial).spec
    if not path.is_file():
        return None
    try:
        adapter = read_json(path).get("initial_adapter")  # only this, as it may be of an earlier version of sweeper
        return None if adapter is None else TrialPaths(Path(adapter).parent).number
    except (ValueError, TypeError, AttributeError) as error:
        raise RegistryError(f"{path} is damaged; restore it from a backup") from error


def scores(database: Database, study: str, trial: int) -> dict[str, Any]:
    """Return the stored scores of a trial as {split: {metric: score, interval and difference to the base}}."""
    return {
        evaluation.split: {score.metric: asdict(score) for score in evaluation.scores}
        for evaluation in database.evaluations.all(study)
        if evaluation.number == trial
    }
