"""The two sides of ``store.py``: a trial's life through plain Optuna, and through sweeper's search and database."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.storages import RDBStorage
from sqlalchemy import event
from store_fill import fill

from sweeper.config.adapter import LoRA
from sweeper.config.evaluation import EvaluationConfig
from sweeper.config.model import ModelConfig
from sweeper.config.parameters import Hyperparameters
from sweeper.config.search import SearchConfig
from sweeper.config.space import Choice, FloatRange, IntRange, Range
from sweeper.config.technique import SFT
from sweeper.config.trial import Outcome, TrialResult, TrialSpec
from sweeper.database_url import Address
from sweeper.search.candidate import Candidate
from sweeper.search.storages.open import open_storage
from sweeper.search.study import Search
from sweeper.store import Database, TrialKind

STUDY = "measured"
REPORTS = 5
_FOLDER = Path("nowhere")
SPACE: dict[str, Range] = {
    "learning_rate": FloatRange(low=1e-5, high=1e-2, log=True),
    "lora_rank": Choice(choice=(4, 8, 16, 32)),
    "batch_size": Choice(choice=(4, 8, 16)),
    "epochs": IntRange(low=1, high=3),
}


class Side(Protocol):
    """One way to run trials, opened by each process for itself; ``create`` is called once before."""

    def create(self) -> None:
        """Make an empty study."""

    def fill(self, trials: int) -> None:
        """Add finished trials to the study just made."""

    def open(self) -> None:
        """Open the study, history included."""

    def rest(self) -> None:
        """Close every connection; the next call opens them again, also in a process that was forked meanwhile."""

    def ask(self) -> Any:
        """Begin a trial; None where there are enough."""

    def report(self, trial: Any, step: int, value: float) -> None:
        """Report a value, and ask whether to prune; the answer is not obeyed, so that all trials are as long."""

    def tell(self, trial: Any, value: float) -> None:
        """End a trial."""


class Plain:
    """Optuna as its tutorials have it. Nothing in it bounds the trials of several processes: each begins its share."""

    def __init__(self, url: str, sampler: str, share: int, wal: bool = False) -> None:
        self._url = url
        self._wal = wal
        self._sampler = sampler
        self._left = share

    def _storage(self) -> RDBStorage:
        storage = RDBStorage(self._url)
        if self._wal:

            @event.listens_for(storage.engine, "connect")
            def configure(connection: Any, _: object) -> None:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")

            storage.engine.dispose()
        return storage

    def create(self) -> None:
        """Make an empty study."""
        self._study = optuna.create_study(study_name=STUDY, storage=self._storage())

    def fill(self, trials: int) -> None:
        """Add finished trials to the study just made."""
        _fill(self._study, trials)

    def open(self) -> None:
        """Open the study, history included."""
        sampler = optuna.samplers.RandomSampler() if self._sampler == "random" else None
        self._study = optuna.load_study(study_name=STUDY, storage=self._storage(), sampler=sampler)
        self._study.get_trials(deepcopy=False)

    def rest(self) -> None:
        """Close every connection."""
        _rest(self._study)

    def ask(self) -> optuna.Trial | None:
        """Begin a trial."""
        if self._left == 0:
            return None
        self._left -= 1
        trial = self._study.ask()
        trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True)
        trial.suggest_categorical("lora_rank", (4, 8, 16, 32))
        trial.suggest_categorical("batch_size", (4, 8, 16))
        trial.suggest_int("epochs", 1, 3)
        return trial

    def report(self, trial: optuna.Trial, step: int, value: float) -> None:
        """Report a value."""
        trial.report(value, step)
        trial.should_prune()

    def tell(self, trial: optuna.Trial, value: float) -> None:
        """End a trial."""
        self._study.tell(trial, value)


class Sweeper:
    """sweeper's search and records, as several runners of a study use them.

    A worker asks in its turn; it holds a trial by a lease; and each trial stands in both databases.
    """

    def __init__(self, address: Address, sampler: str, n_trials: int) -> None:
        self._address = address
        self._known: dict[str, Any] = {
            "config": SearchConfig.model_validate(
                {"n_trials": n_trials, "sampler": {"kind": "random"} if sampler == "random" else "auto", "confirm": 0}
            ),
            "space": SPACE,
            "evaluation": EvaluationConfig(),
            "seed": 1,
        }

    def create(self) -> None:
        """Make an empty study."""
        with Database.open(self._address, create=True) as database:
            told = {"config": {}, "space": {}, "seed": 1, "packages": {}, "data_sha256": {}, "base_model": "tiny"}
            database.studies.create(STUDY, file_name="measured.yaml", file_text="", base_model_fingerprint="", **told)
        self._study = Search.create(STUDY, open_storage(self._address), **self._known).study

    def fill(self, trials: int) -> None:
        """Add finished trials to the study just made."""
        _fill(self._study, trials)

    def open(self) -> None:
        """Open the study, history included."""
        self._database = Database.open(self._address, create=False)
        self._search = Search.open(STUDY, open_storage(self._address), **self._known)
        self._study = self._search.study
        self._study.get_trials(deepcopy=False)
        self._curves: dict[int, list[Any]] = defaultdict(list)
        self._began: dict[int, str] = {}
        self._worker = ""

    def rest(self) -> None:
        """Close every connection."""
        _rest(self._study)
        self._database.close()

    def ask(self) -> Candidate | None:
        """Begin a trial."""
        if not self._worker:
            self._worker = f"{random.SystemRandom().getrandbits(64):x}"
            self._database.workers.join(STUDY, self._worker, "cpu", expires_in_s=600)
        with self._database.study_lock(STUDY):
            candidate = self._search.ask()
            if candidate is None:
                return None
            self._database.leases.take(STUDY, candidate.number, self._worker)
        self._database.trials.start(self._spec(candidate), TrialKind(candidate.kind), total_steps=100)
        self._began[candidate.number] = datetime.now(UTC).isoformat()
        return candidate

    def _spec(self, candidate: Candidate) -> TrialSpec:
        return TrialSpec(
            study=STUDY,
            number=candidate.number,
            seed=candidate.seed,
            model=ModelConfig(name="tiny"),
            model_folder=_FOLDER,
            technique=SFT(),
            adapter=LoRA(),
            train=_FOLDER / "train.jsonl",
            validation=_FOLDER / "validation.jsonl",
            hyperparameters=Hyperparameters(**candidate.parameters),
            evaluation=EvaluationConfig(),
            device="cpu",
            folder=_FOLDER / str(candidate.number),
        )

    def report(self, trial: Candidate, step: int, value: float) -> None:
        """Report a value; curves are stored once a second, or at the end, as ``executors/recorder.py`` does."""
        self._curves[trial.number].append((trial.number, step, {"eval_loss": value}, float(step)))
        self._search.report(trial.number, step / 100, value)

    def tell(self, trial: Candidate, value: float) -> None:
        """End a trial."""
        number = trial.number
        result = TrialResult(
            number=number,
            outcome=Outcome.COMPLETE,
            value=value,
            steps=100,
            total_steps=100,
            started_at=self._began.pop(number),
            finished_at=datetime.now(UTC).isoformat(),
        )
        self._database.metrics.add(STUDY, self._curves.pop(number), holder=self._worker)
        self._database.trials.finish(STUDY, result, holder=self._worker)
        self._search.tell(number, result)
        self._database.leases.release(STUDY, number, self._worker)


def _fill(study: optuna.Study, trials: int) -> None:
    fill(study._storage._backend, study._study_id, SPACE, trials, REPORTS)


def _rest(study: optuna.Study) -> None:
    backend: Any = study._storage._backend
    backend.remove_session()
    backend.engine.dispose()


def live(side: Side, until: Callable[[], bool]) -> tuple[int, dict[str, float], list[str]]:
    """Run trials one after the other; return how many ended, the seconds of each kind of call, and what was raised."""
    rng, ended, faults = random.Random(), 0, []
    spent: dict[str, float] = {"ask": 0.0, "report": 0.0, "tell": 0.0}

    def timed(name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        began = time.perf_counter()
        try:
            return call(*arguments)
        finally:
            spent[name] += time.perf_counter() - began

    while not until():
        try:
            trial = timed("ask", side.ask)
            if trial is None:
                break
            for step in range(1, REPORTS + 1):
                timed("report", side.report, trial, 20 * step - 1, rng.random())
            timed("tell", side.tell, trial, rng.random())
            ended += 1
        except Exception as error:
            faults.append(f"{type(error).__name__}: {error.__cause__ or error}")
    return ended, spent, faults
