"""Registered versions whose scores are real: computed by the metrics themselves, and stored as a study stores them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy
from safetensors.numpy import save_file

from sweeper.config.adapter import LoRA
from sweeper.config.evaluation import EvaluationConfig
from sweeper.config.loader import StudyFile
from sweeper.config.model import ModelConfig
from sweeper.config.parameters import Hyperparameters
from sweeper.config.technique import SFT
from sweeper.config.trial import TrialSpec
from sweeper.evaluation.comparison import score_rows
from sweeper.evaluation.metrics.base import FloatArray
from sweeper.evaluation.scores import Scores, example_rows, metric_score
from sweeper.paths import Home
from sweeper.registry import AdapterVersion, Registry, Stage
from sweeper.store import Database, Evaluation, StudyState, TrialKind


class Judged:
    """A home whose versions are registered with scores by example."""

    def __init__(self, home: Home, database: Database, folder: Path) -> None:
        self.home = home
        self.database = database
        self.registry = Registry(home, database)
        self.folder = folder

    def study(self, name: str = "itn", *, metric: str = "exact_match", margin: float = 0.0, **more: Any) -> None:
        evaluation = EvaluationConfig(metrics=(metric,), promotion_margin=margin).model_dump(mode="json")
        self.database.studies.create(
            name,
            file_name=f"{name}.yaml",
            file_text=f"name: {name}\nevaluation:\n  metrics: [{metric}]\n",
            config={"name": name, "evaluation": evaluation, "technique": {"kind": "sft"}, **more},
            space={},
            seed=3,
            packages={"torch": "2.13.0"},
            data_sha256={"train": "d" * 64},
            base_model="smollm2-135m",
            base_model_fingerprint="f" * 64,
        )
        self.database.studies.set_state(name, StudyState.FINISHED)

    def score(
        self,
        number: int | None,
        values: Sequence[float],
        *,
        study: str = "itn",
        metric: str = "exact_match",
        split: str = "test",
        prompts: str = "prompt",
        tokens: int = 3,
    ) -> None:
        """Store a score an example; of a loss, the summed loss of ``tokens`` tokens."""
        statistics: FloatArray = numpy.array([[v, tokens] if metric == "eval_loss" else [v] for v in values], float)
        count = len(values)
        scores = Scores(
            {metric: metric_score(metric, statistics)},
            tuple(f"{prompts} {index}" for index in range(count)),
            tuple(f"due {index}" for index in range(count)),
            tuple(f"text {index}" for index in range(count)),
        )
        self.database.evaluations.add(study, Evaluation(number, split, score_rows(scores, {})), example_rows(scores))

    def version(
        self,
        number: int,
        values: Sequence[float] | None = None,
        *,
        study: str = "itn",
        name: str = "itn",
        stage: Stage = Stage.STAGING,
        learning_rate: float = 1e-3,
        **scored: Any,
    ) -> AdapterVersion:
        """Register a trial, scored with ``values``, and bring it to a stage; into production by force."""
        spec = TrialSpec(
            study=study,
            number=number,
            seed=number,
            model=ModelConfig(name="smollm2-135m"),
            model_folder=self.folder,
            technique=SFT(),
            adapter=LoRA(),
            train=self.folder,
            validation=self.folder,
            hyperparameters=Hyperparameters(learning_rate=learning_rate, batch_size=8, epochs=1),
            evaluation=EvaluationConfig(),
            device="cpu",
            folder=self.folder,
        )
        self.database.trials.start(spec, TrialKind.SAMPLED)
        if values is not None:
            self.score(number, values, study=study, **scored)
        found = self.registry.register(name, self._source(number), study=study, trial=number, actor="ann")
        if stage in (Stage.STAGING, Stage.PRODUCTION):
            found = self.registry.move(name, found.version, Stage.STAGING, actor="ann")
        if stage is Stage.PRODUCTION:
            found = self.registry.move(name, found.version, stage, actor="ann", force=True)
        return found

    def _source(self, number: int) -> Path:
        folder = self.folder / f"source-{number}"
        folder.mkdir(exist_ok=True)
        save_file(
            {"layer.lora_A.weight": numpy.full((4, 8), number + 1, numpy.float32)}, folder / "adapter_model.safetensors"
        )
        (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4}))
        return folder


LEARNABLE: dict[str, Any] = {
    "shape": "same_answer",
    "search": {
        "space": {"learning_rate": 2e-2, "batch_size": 8, "epochs": 4, "lora_rank": 4, "lora_dropout": 0.0},
        "n_trials": 1,
        "confirm": 0,
    },
    "evaluation": {"metric": "exact_match", "metrics": ["exact_match"], "candidates": 1},
}


def weak_and_strong(study_file: Callable[..., StudyFile]) -> None:
    """Run two studies on the tiny model and register the adapter ``tiny`` in the present home.

    Version 1, in production, learned nothing; version 2, in staging, is of another study and knows the only answer to
    its own test examples.
    """
    from sweeper.study.run import run_study  # imports torch

    home = Home.current()
    weak = {**LEARNABLE["search"], "space": {**LEARNABLE["search"]["space"], "learning_rate": 1e-9}}
    run_study(study_file("weak", **{**LEARNABLE, "shape": "prompt_completion", "search": weak}), force=True)
    run_study(study_file("strong", **LEARNABLE))
    with Database.open(home.database, create=False) as database:
        registry = Registry(home, database)
        for study in ("weak", "strong"):
            version = registry.register("tiny", home.study(study).trial(0).adapter, study=study, trial=0)
            registry.move("tiny", version.version, Stage.STAGING)
        registry.move("tiny", 1, Stage.PRODUCTION, force=True, actor="ann", reason="the first one")
