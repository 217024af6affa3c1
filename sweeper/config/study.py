"""What a study is: the whole of a study file as one frozen value."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from sweeper.config.adapter import Adapter, QLoRA
from sweeper.config.backend import TRL, Backend
from sweeper.config.base import Frozen
from sweeper.config.data import DataConfig
from sweeper.config.evaluation import EvaluationConfig
from sweeper.config.executor import Executor, PackedExecutor, StorageConfig
from sweeper.config.model import ModelConfig
from sweeper.config.search import SearchConfig
from sweeper.config.technique import SFT, Technique

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")


def valid_name(name: str) -> str:
    """Return ``name`` if it can name a study or an adapter on every database and file system.

    Raises:
        ValueError: If it is empty, longer than 100, or has anything but letters, digits, ``.``, ``_`` and ``-``.
    """
    if not _NAME.fullmatch(name) or ".." in name or name.endswith("."):
        raise ValueError(
            "a name has 1 to 100 letters, digits, '.', '_' or '-', and begins with a letter or digit; "
            f"found {name[:120]!r}"
        )
    return name


Name = Annotated[str, AfterValidator(valid_name)]


class StudyConfig(Frozen):
    """One study: what to tune, on what, how to search, and what decides."""

    name: Name
    model: ModelConfig
    data: DataConfig
    technique: Technique = SFT()
    adapter: Adapter = QLoRA()
    backend: Backend = TRL()
    search: SearchConfig = SearchConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    executor: Executor = PackedExecutor()
    storage: StorageConfig = StorageConfig()
    seed: int = Field(default=0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _one_objective_for_cmaes(self) -> StudyConfig:
        if self.search.sampler.kind == "cmaes" and self.evaluation.objectives:
            raise ValueError(
                "search.sampler: cmaes handles one objective only; leave evaluation.objectives out, or use tpe or gp"
            )
        return self
