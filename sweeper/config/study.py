"""The configuration of a whole study."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from sweeper.config.adapter import Adapter, QLoRA
from sweeper.config.backend import TRL, Backend
from sweeper.config.base import Frozen
from sweeper.config.choice import (
    AdapterAlternative,
    AdapterChoice,
    ModelChoice,
    OneOrMoreAdapters,
    OneOrMoreModels,
    loaded_as,
    variants,
)
from sweeper.config.combinations import refusal
from sweeper.config.data import DataConfig
from sweeper.config.evaluation import METRICS_OF, SMALLEST, EvaluationConfig
from sweeper.config.executor import Executor, PackedExecutorConfig
from sweeper.config.model import ModelConfig
from sweeper.config.search import SearchConfig
from sweeper.config.space import ADAPTER, Range, space_of
from sweeper.config.storage import KeepConfig, Storage
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
    """One study: model, data, technique, search and evaluation."""

    name: Name
    model: OneOrMoreModels
    data: DataConfig
    technique: Technique = SFT()
    adapter: OneOrMoreAdapters = QLoRA()
    backend: Backend = TRL()
    search: SearchConfig = SearchConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    executor: Executor = PackedExecutorConfig()
    storage: Storage | None = None
    keep: KeepConfig = KeepConfig()
    seed: int = Field(default=0, ge=0, lt=2**31)

    @model_validator(mode="before")
    @classmethod
    def _default_metrics_are_the_techniques(cls, data: Any) -> Any:
        """A study that names no metrics gets those of its technique."""
        if not isinstance(data, dict) or not isinstance(data.get("evaluation", {}), dict):
            return data
        technique = technique_class(data.get("technique", "sft"))
        decides = {"metric": technique.metric, "metrics": technique.metrics}
        return {**data, "evaluation": {**decides, **data.get("evaluation", {})}}

    @model_validator(mode="before")
    @classmethod
    def _goal_minimises_the_size(cls, data: Any) -> Any:
        """With several models and a goal, the search is for the smallest that meets it, unless objectives are named."""
        model, evaluation = (data.get(part) for part in ("model", "evaluation")) if isinstance(data, dict) else ("", "")
        several = "choice" in model if isinstance(model, dict) else isinstance(model, ModelChoice)
        if several and isinstance(evaluation, Mapping) and evaluation.get("goal") is not None:
            return {**data, "evaluation": {**evaluation, "objectives": evaluation.get("objectives") or SMALLEST}}
        return data

    @model_validator(mode="after")
    def _metrics_fit_the_technique(self) -> StudyConfig:
        kind, possible = self.technique.kind, METRICS_OF[self.technique.rows]
        named = [("metric", self.evaluation.metric), *(("metrics", name) for name in self.evaluation.metrics)]
        for place, name in named:
            if name not in possible:
                allowed = ", ".join(possible)
                raise ValueError(f"evaluation.{place}: {name} does not apply to {kind}; use one of {allowed}")
        if kind != "sft" and "eval_loss" in self.evaluation.metrics:
            raise ValueError(
                f"evaluation.metrics: the loss of {kind} is only known during training; compare by "
                f"{', '.join(name for name in possible if name != 'eval_loss')}"
            )
        return self

    @property
    def adapters(self) -> dict[str, AdapterAlternative]:
        """The adapters to choose from by label; a single one by its kind."""
        if isinstance(self.adapter, AdapterChoice):
            return self.adapter.by_label
        return {self.adapter.kind: AdapterAlternative(adapter=self.adapter)}

    def variants(self, space: Mapping[str, Range]) -> Iterator[Adapter]:
        """Yield every adapter that a trial may have, with every combination of the searched options.

        Raises:
            ValidationError: On reaching a combination that is not allowed.
        """
        for label, alternative in self.adapters.items():
            yield from variants(alternative.adapter, space_of(space, {ADAPTER: label}))

    @property
    def models(self) -> dict[str, ModelConfig]:
        """The base models to choose from by name."""
        return self.model.by_label if isinstance(self.model, ModelChoice) else {self.model.name: self.model}

    @property
    def bases(self) -> tuple[str, ...]:
        """The labels of the different base models of the trials, as from ``base_label``."""
        adapters = [alternative.adapter for alternative in self.adapters.values()]
        return tuple(dict.fromkeys(self.base_label(name, adapter) for name in self.models for adapter in adapters))

    def base_label(self, model: str, adapter: Adapter) -> str:
        """Return what distinguishes an adapter's base model from the study's others; empty if there is only one.

        A quantised base gives other answers than a dense one, so they count as two.
        """
        held = {loaded_as(alternative.adapter) for alternative in self.adapters.values()}
        parts = [model] * (len(self.models) > 1) + [loaded_as(adapter)] * (len(held) > 1)
        return " ".join(parts)

    @model_validator(mode="after")
    def _parts_fit_together(self) -> StudyConfig:
        if self.technique.head == "score" and "latency" in self.evaluation.objectives:
            raise ValueError(
                f"evaluation.objectives: latency is the time of a generated token, and models of technique "
                f"{self.technique.kind} generate none; leave it out"
            )
        if self.search.sampler.kind == "cmaes" and self.evaluation.objectives:
            raise ValueError(
                "search.sampler: cmaes supports only one objective; leave evaluation.objectives out, or use tpe or gp"
            )
        for alternative in self.adapters.values():
            if reason := refusal(self.technique, alternative.adapter):
                raise ValueError(reason)
        return self
