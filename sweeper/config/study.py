"""What a study is: the whole of a study file as one frozen value."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from sweeper.config.adapter import Adapter, QLoRA
from sweeper.config.base import Frozen
from sweeper.config.combinations import refusal
from sweeper.config.data import DataConfig
from sweeper.config.evaluation import EvaluationConfig, metrics_of
from sweeper.config.executor import Executor, PackedExecutor, StorageConfig
from sweeper.config.model import ModelConfig
from sweeper.config.search import SearchConfig
from sweeper.config.technique import SFT, Technique, technique_class

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
    search: SearchConfig = SearchConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    executor: Executor = PackedExecutor()
    storage: StorageConfig = StorageConfig()
    seed: int = Field(default=0, ge=0, lt=2**31)

    @model_validator(mode="before")
    @classmethod
    def _technique_says_what_decides(cls, data: Any) -> Any:
        """Each technique has metrics of its own, for a study that names none."""
        if not isinstance(data, dict) or not isinstance(data.get("evaluation", {}), dict):
            return data
        technique = technique_class(data.get("technique", "sft"))
        decides = {"metric": technique.metric, "metrics": technique.metrics}
        return {**data, "evaluation": {**decides, **data.get("evaluation", {})}}

    @model_validator(mode="after")
    def _metrics_fit_the_technique(self) -> StudyConfig:
        kind, possible = self.technique.kind, metrics_of(self.technique.rows)
        for place, names in (("metric", (self.evaluation.metric,)), ("metrics", self.evaluation.metrics)):
            for name in names:
                if name not in possible:
                    raise ValueError(
                        f"evaluation.{place}: {kind} is not measured by {name}; use one of {', '.join(possible)}"
                    )
        if kind != "sft" and "eval_loss" in self.evaluation.metrics:
            raise ValueError(
                f"evaluation.metrics: the loss of {kind} is known while training only; compare by "
                f"{', '.join(name for name in possible if name != 'eval_loss')}"
            )
        return self

    @model_validator(mode="after")
    def _one_objective_for_cmaes(self) -> StudyConfig:
        if self.search.sampler.kind == "cmaes" and self.evaluation.objectives:
            raise ValueError(
                "search.sampler: cmaes handles one objective only; leave evaluation.objectives out, or use tpe or gp"
            )
        return self

    @model_validator(mode="after")
    def _adapter_fits_technique(self) -> StudyConfig:
        reason = refusal(self.technique, self.adapter)
        if reason is not None:
            raise ValueError(reason)
        return self
