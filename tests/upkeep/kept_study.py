"""A study whose trials end as a test says, with files as real ones leave them and weights of three numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tiny
from safetensors.numpy import save_file

from sweeper.config.parameters import Hyperparameters
from sweeper.config.study import StudyConfig
from sweeper.config.trial import Outcome, TrialResult, TrialSpec
from sweeper.files.atomic import write_atomically, write_json
from sweeper.files.checksums import owner, seal, sha256_of
from sweeper.models.facts import fingerprint
from sweeper.paths import Home
from sweeper.registry import Registry
from sweeper.search.candidate import Candidate
from sweeper.search.storages.open import open_storage
from sweeper.search.study import Search
from sweeper.store import Database, StudyState
from sweeper.store.trial_files import of_result

AT = "2026-01-01T00:00:00+00:00"
SPLITS = ("train", "validation", "test")


class KeptStudy:
    """A study that was begun; its methods do what a runner does, step by step."""

    def __init__(self, name: str, *, base: Path, model: str | None = None, **parts: Any) -> None:
        self.name, self.model, self.home = name, base, Home.current()
        self.paths = self.home.study(name)
        self.config = StudyConfig.model_validate(
            {
                "name": name,
                "model": model or str(base),
                "data": {"train": "train.jsonl"},
                "adapter": {"kind": "lora"},
                "search": {"n_trials": 20, "sampler": "random", "pruner": "none", "known_good": False, "confirm": 0},
                "evaluation": {"metrics": ["exact_match"], "candidates": 2},
                "executor": {"device": "cpu"},
                **parts,
            }
        )
        self.space = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "batch_size": {"value": 8}}
        self.database = Database.open(self.home.database, create=True)
        rows = [tiny.row("prompt_completion", 100 + n) for n in range(3)]
        files = {split: tiny.write_rows(self.paths.data / f"{split}.jsonl", rows) for split in SPLITS}
        found = {"folder": str(base), "fingerprint": fingerprint(base), "tokens_per_row": 9}
        write_json(
            self.paths.resolved, {"train_rows": 3, "models": {model or str(base): found}, "reward_sources": None}
        )
        self.search = self._open(Search.create)
        self.database.studies.create(
            name,
            file_name=f"{name}.yaml",
            file_text=f"name: {name}\n",
            config=self.config.model_dump(mode="json"),
            space={"preset": "none", "reasons": [], "known_good": [], "space": self._space_json()},
            seed=self.config.seed,
            packages={},
            data_sha256={split: sha256_of(path) for split, path in files.items()},
            base_model=model or str(base),
            base_model_fingerprint=found["fingerprint"],
        )

    def _space(self) -> Any:
        from pydantic import TypeAdapter

        from sweeper.config.space import Space

        return TypeAdapter(Space).validate_python(self.space)

    def _space_json(self) -> dict[str, Any]:
        return {name: each.model_dump(mode="json") for name, each in self._space().items()}

    def _open(self, how: Any) -> Search:
        return how(
            self.name,
            open_storage(self.home.database),
            config=self.config.search,
            space=self._space(),
            evaluation=self.config.evaluation,
            seed=self.config.seed,
        )

    def reopen(self) -> Search:
        """The search as another process takes it up."""
        self.search = self._open(Search.open)
        return self.search

    def ask(self) -> Candidate:
        candidate = self.search.ask()
        assert candidate is not None
        return candidate

    def start(self, candidate: Candidate | None = None) -> int:
        """Begin the next trial: its specification is on disk, its row in the database."""
        candidate = candidate or self.ask()
        spec = TrialSpec(
            study=self.name,
            number=candidate.number,
            seed=candidate.seed,
            model=next(iter(self.config.models.values())),
            model_folder=self.model,
            technique=self.config.technique,
            adapter=next(iter(self.config.adapters.values())).adapter,
            train=self.paths.data / "train.jsonl",
            validation=self.paths.data / "validation.jsonl",
            hyperparameters=Hyperparameters(
                learning_rate=float(candidate.parameters["learning_rate"]), batch_size=8, epochs=1.0
            ),
            evaluation=self.config.evaluation,
            device="cpu",
            folder=self.paths.trial(candidate.number).folder,
        )
        write_atomically(self.paths.trial(candidate.number).spec, spec.model_dump_json())
        self.database.trials.start(
            spec, candidate.kind, confirms=candidate.confirms, restarts=candidate.restarts, initial=candidate.initial
        )
        return candidate.number

    def save_adapter(self, number: int, size: int = 3) -> str:
        """Write an adapter of ``size`` numbers into a trial's folder; return the SHA-256 of its weights."""
        folder = self.paths.trial(number).adapter
        folder.mkdir(parents=True, exist_ok=True)
        weights = folder / "adapter_model.safetensors"
        save_file({"weight": np.full(size, number + 0.5, dtype=np.float32)}, weights)
        (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 16, "trial": number}))
        return sha256_of(weights)

    def leave(self, number: int, outcome: Outcome = Outcome.COMPLETE, value: float = 1.0, size: int = 3) -> TrialResult:
        """Write what a trial that ended so leaves on disk; nothing is told to anyone yet."""
        done = outcome is Outcome.COMPLETE
        sha256 = self.save_adapter(number, size) if done else None
        if outcome.is_open:
            folder = self.paths.trial(number).frozen
            folder.mkdir(parents=True, exist_ok=True)
            save_file({"adapter w": np.full(size, number + 0.25, dtype=np.float32)}, folder / "slot.safetensors")
            write_json(folder / "slot.json", {"trial": number})
            seal(folder, owner(self.name, number))
        result = TrialResult(
            number=number,
            outcome=outcome,
            reason=None if done else "for the test",
            value=value if done else None,
            metrics={"eval_loss": value},
            steps=3,
            total_steps=3,
            epochs_trained=1.0,
            started_at=AT,
            finished_at=AT,
            adapter_bytes=100 if done else None,
            adapter_sha256=sha256,
        )
        write_atomically(self.paths.trial(number).result, result.model_dump_json())
        return result

    def record(self, result: TrialResult) -> None:
        """Put a result into the database, with its files."""
        files = of_result(self.paths.trial(result.number), result)
        self.database.trials.finish(self.name, result, artifacts=files)

    def end(self, value: float = 1.0, outcome: Outcome = Outcome.COMPLETE, size: int = 3) -> int:
        """Run a whole trial to its end."""
        number = self.start()
        result = self.leave(number, outcome, value, size)
        self.record(result)
        self.search.tell(number, result)
        return number

    def register(self, number: int) -> Any:
        """Register the adapter of a trial."""
        registry = Registry(self.home, self.database)
        return registry.register(self.name, self.paths.trial(number).adapter, study=self.name, trial=number)

    def stop(self, state: StudyState = StudyState.INTERRUPTED) -> None:
        """Say that no process runs it any more."""
        self.database.studies.set_state(self.name, state)

    def adapters(self) -> list[int]:
        """The trials that have an adapter on disk."""
        return sorted(int(path.parent.name) for path in self.paths.folder.glob("trials/*/adapter"))
