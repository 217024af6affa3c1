"""A home filled through the store's own API, with hostile texts where wanted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sweeper_dashboard
from sweeper.config.adapter import QLoRA
from sweeper.config.data import DataConfig
from sweeper.config.evaluation import EvaluationConfig
from sweeper.config.model import ModelConfig
from sweeper.config.parameters import Hyperparameters
from sweeper.config.search import SearchConfig
from sweeper.config.study import StudyConfig
from sweeper.config.technique import SFT
from sweeper.config.trial import Outcome, TrialResult, TrialSpec
from sweeper.paths import Home
from sweeper.store import (
    AdapterRecord,
    Database,
    Evaluation,
    Example,
    ScoreRecord,
    Stage,
    StudyState,
    TrialKind,
)

HOSTILE = (
    '<script>alert(1)</script> [x](javascript:alert(1)) **b** $x$ :red[y] \x1b[31mred\x1b[0m \u202eabc {{7*7}} "=1+1"'
)
"""Text as a hostile user, model or data set would write it."""

APP = Path(next(iter(sweeper_dashboard.__path__))) / "app.py"


class Filler:
    """Fills a home through the store's own API."""

    def __init__(self, home: Home, database: Database) -> None:
        self.home = home
        self.database = database

    def study(self, name: str = "itn", *, text: str = "plain", config: dict[str, Any] | None = None) -> None:
        stored = StudyConfig(
            name="itn",
            model=ModelConfig(name="smollm2-135m"),
            data=DataConfig(train=("train.jsonl",)),
            search=SearchConfig(n_trials=6, timeout=600, max_epochs_total=6),
        ).model_dump(mode="json")
        self.database.studies.create(
            name,
            file_name="itn.yaml",
            file_text=f"name: itn  # {text}\n",
            config=stored if config is None else config,
            space={"preset": "lora", "reasons": [text]},
            seed=3,
            packages={"torch": "2.13.0"},
            data_sha256={"train": "a" * 64},
            base_model=text,
            base_model_fingerprint="b" * 64,
        )

    @contextmanager
    def held(self, name: str = "itn") -> Iterator[None]:
        """Be among the workers of a study, as the process is that runs it."""
        self.database.workers.join(name, f"runs {name}", "cpu", expires_in_s=60)
        try:
            yield
        finally:
            self.database.workers.leave(f"runs {name}")

    def trial(
        self,
        number: int,
        outcome: Outcome | None = Outcome.COMPLETE,
        value: float | None = None,
        *,
        study: str = "itn",
        learning_rate: float = 1e-3,
        reason: str | None = None,
        confirms: int | None = None,
        scheduler: str = "linear",
        seed: int = 7,
        batch_size: int = 8,
        initial: int | None = None,
        parameters: int | None = None,
    ) -> None:
        trl = {"optim": scheduler, "adam_beta2": 0.99}
        spec = TrialSpec(
            study=study,
            number=number,
            seed=seed,
            model=ModelConfig(name="smollm2-135m"),
            model_folder=self.home.folder,
            technique=SFT(),
            adapter=QLoRA(),
            train=self.home.folder / "train.jsonl",
            validation=self.home.folder / "validation.jsonl",
            hyperparameters=Hyperparameters(learning_rate=learning_rate, batch_size=batch_size, epochs=1, trl=trl),
            evaluation=EvaluationConfig(),
            device="cpu",
            folder=self.home.folder / "trial",
        )
        kind = TrialKind.SAMPLED if confirms is None else TrialKind.CONFIRMATION
        self.database.trials.start(spec, kind, confirms=confirms, initial=initial)
        last = 6 if outcome is Outcome.COMPLETE else 3
        worst = 3.0 if value is None else value
        points = [
            (number, step, {"loss": worst + 2 / step, "learning_rate": 1e-3 / step}) for step in range(1, last + 1)
        ]
        points += [(number, step, {"eval_loss": worst + 1 / step}) for step in range(2, last + 1, 2)]
        if outcome is Outcome.DIVERGED:
            points.append((number, last + 1, {"loss": math.nan}))
        self.database.metrics.add(study, points)
        if outcome is None:
            return
        begun = datetime.now(UTC)
        self.database.trials.finish(
            study,
            TrialResult(
                number=number,
                outcome=outcome,
                reason=reason,
                value=value,
                metrics={} if value is None else {"eval_loss": value},
                best_step=last,
                steps=last,
                total_steps=6,
                epochs_trained=last / 6,
                started_at=begun.isoformat(),
                finished_at=(begun + timedelta(seconds=30)).isoformat(),
                train_seconds=30.0,
                total_parameters=parameters,
            ),
        )

    def evaluate(
        self, number: int | None, score: float, *, study: str = "itn", text: str = "plain", base: str = ""
    ) -> None:
        compared = (None, None, None) if number is None else (score, score - 0.1, score + 0.1)
        scores = tuple(
            ScoreRecord(name, score, score - 0.1, score + 0.1, *compared) for name in ("exact_match", "token_f1")
        )
        examples = [
            Example(
                index, f"prompt {index} {text}", f"due {index} {text}", f"{text} from {number}", {"exact_match": score}
            )
            for index in range(4)
        ]
        self.database.evaluations.add(study, Evaluation(number, "test", scores, base), examples)

    def adapter(self, number: int, *, study: str = "itn", name: str = "itn", text: str = "plain") -> None:
        lineage = {
            "study": study,
            "trial": number,
            "config_sha256": "c" * 64,
            "base_model": text,
            "base_model_fingerprint": "b" * 64,
            "data_sha256": {"train": "a" * 64},
            "hyperparameters": {"learning_rate": 1e-3, "note": text},
            "seeds": {"study": 3, "trial": 7},
            "sweeper_version": "0.1.0",
            "packages": {"torch": "2.13.0"},
            "parent": None,
        }
        self.database.adapters.add(
            AdapterRecord(
                name=name,
                version=self.database.adapters.last_version(name) + 1,
                study=study,
                number=number,
                stage=Stage.CANDIDATE,
                path=f"adapters/{name}/v1",
                sha256="d" * 64,
                bytes=3 * 1024**2,
                files={"adapter_model.safetensors": "d" * 64},
                scores={"test": {"exact_match": {"metric": "exact_match", "score": 0.9, "low": 0.8, "high": 1.0}}},
                lineage=lineage,
                created_at=datetime.now(UTC),
            )
        )

    def whole(self, name: str = "itn", *, text: str = "plain") -> None:
        """Fill in a finished study with everything a study can have."""
        self.study(name, text=text)
        self.trial(0, value=1.5, study=name, learning_rate=1e-3)
        self.trial(1, Outcome.PRUNED, study=name, learning_rate=1e-5, reason=f"worse than others {text}")
        self.trial(2, value=1.2, study=name, learning_rate=2e-3, scheduler=text)
        self.trial(3, Outcome.DIVERGED, study=name, learning_rate=1e-1, reason="the loss is NaN")
        self.trial(4, value=1.6, study=name, learning_rate=1e-3, confirms=0)
        self.evaluate(None, 0.1, study=name, text=text)
        self.evaluate(0, 0.7, study=name, text=text)
        self.evaluate(2, 0.9, study=name, text=text)
        self.adapter(2, study=name, text=text)
        self.database.events.add(name, "note", text)
        self.database.studies.set_state(name, StudyState.FINISHED)
