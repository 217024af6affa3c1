"""A whole study file as one frozen value."""

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
)
from sweeper.config.combinations import refusal
from sweeper.config.data import DataConfig
from sweeper.config.evaluation import SMALLEST, EvaluationConfig, metrics_of
from sweeper.config.executor import Executor, PackedExecutorConfig
from sweeper.config.keep import KeepConfig
from sweeper.config.model import ModelConfig
from sweeper.config.search import SearchConfig
from sweeper.config.space import ADAPTER, Range, space_of
from sweeper.config.storage import Storage
from sweeper.config.technique import SFT, Technique, technique_class
from sweeper.config.variants import variants

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
    def _technique_says_what_decides(cls, data: Any) -> Any:
        """Each technique has metrics of its own, for a study that names none."""
        if not isinstance(data, dict) or not isinstance(data.get("evaluation", {}), dict):
            return data
        technique = technique_class(data.get("technique", "sft"))
        decides = {"metric": technique.metric, "metrics": technique.metrics}
        return {**data, "evaluation": {**decides, **data.get("evaluation", {})}}

    @model_validator(mode="before")
    @classmethod
    def _goal_asks_for_the_smallest(cls, data: Any) -> Any:
        """With several models and a goal, what is sought is the smallest that meets it, unless objectives are named."""
        model, evaluation = (data.get(part) for part in ("model", "evaluation")) if isinstance(data, dict) else ("", "")
        several = "choice" in model if isinstance(model, dict) else isinstance(model, ModelChoice)
        if several and isinstance(evaluation, Mapping) and evaluation.get("goal") is not None:
            return {**data, "evaluation": {**evaluation, "objectives": evaluation.get("objectives") or SMALLEST}}
        return data

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

    @property
    def adapters(self) -> dict[str, AdapterAlternative]:
        """The adapters to choose from by label; of one that is not a choice, that one by its kind."""
        if isinstance(self.adapter, AdapterChoice):
            return self.adapter.by_label
        return {self.adapter.kind: AdapterAlternative(adapter=self.adapter)}

    def variants(self, space: Mapping[str, Range]) -> Iterator[Adapter]:
        """Yield every adapter that a trial may have, with every combination of the options that a space names.

        Raises:
            ValidationError: When it comes to a combination that is not allowed.
        """
        for label, alternative in self.adapters.items():
            yield from variants(alternative.adapter, space_of(space, {ADAPTER: label}))

    @property
    def models(self) -> dict[str, ModelConfig]:
        """The base models to choose from by name."""
        return self.model.by_label if isinstance(self.model, ModelChoice) else {self.model.name: self.model}

    @property
    def bases(self) -> tuple[str, ...]:
        """The different base models that trials stand on, as ``base_label`` calls them."""
        adapters = [alternative.adapter for alternative in self.adapters.values()]
        return tuple(dict.fromkeys(self.base_label(name, adapter) for name in self.models for adapter in adapters))

    def base_label(self, model: str, adapter: Adapter) -> str:
        """Return what tells the base model below an adapter from the study's others; empty where it has one only.

        A quantised base answers otherwise than a dense one, so they are two.
        """
        held = {loaded_as(alternative.adapter) for alternative in self.adapters.values()}
        parts = [model] * (len(self.models) > 1) + [loaded_as(adapter)] * (len(held) > 1)
        return " ".join(parts)

    @model_validator(mode="after")
    def _scores_have_no_latency(self) -> StudyConfig:
        if self.technique.head == "score" and "latency" in self.evaluation.objectives:
            raise ValueError(
                f"evaluation.objectives: latency is the time of a generated token, and a model of technique "
                f"{self.technique.kind} generates none; leave it out"
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
        for alternative in self.adapters.values():
            reason = refusal(self.technique, alternative.adapter)
            if reason is not None:
                raise ValueError(reason)
        return self
