"""A study of many trials, written straight into Optuna's tables and sweeper's: what years of sweeps would leave."""

from __future__ import annotations

import json
import math
import random
import sqlite3
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.distributions import distribution_to_json as as_json

from sweeper.config.adapter import QLoRA
from sweeper.config.evaluation import EvaluationConfig
from sweeper.config.loader import StudyFile, load_study
from sweeper.config.model import ModelConfig
from sweeper.config.parameters import Hyperparameters
from sweeper.config.space import Choice, FloatRange, IntRange
from sweeper.config.technique import SFT
from sweeper.config.trial import Outcome, TrialResult, TrialSpec
from sweeper.paths import Home
from sweeper.search.storages.open import open_storage
from sweeper.store import Database, TrialKind

sys.path.append(str(Path(__file__).parents[1]))
import tiny

STEPS = 150
ROWS = 2_000
RUNGS = (34, 67)
STARTED = datetime(2026, 1, 1, tzinfo=UTC)
SPACE: dict[str, Any] = {
    "learning_rate": FloatRange(low=1e-5, high=1e-2, log=True),
    "lora_rank": Choice(choice=(4, 8, 16, 32)),
    "batch_size": Choice(choice=(4, 8, 16)),
    "epochs": IntRange(low=1, high=3),
    "warmup_ratio": FloatRange(low=0.0, high=0.1),
}
_IN_OPTUNA: dict[str, BaseDistribution] = {
    "learning_rate": FloatDistribution(1e-5, 1e-2, log=True),
    "lora_rank": CategoricalDistribution((4, 8, 16, 32)),
    "batch_size": CategoricalDistribution((4, 8, 16)),
    "epochs": IntDistribution(1, 3),
    "warmup_ratio": FloatDistribution(0.0, 0.1),
}


def write_large_study(home: Home, name: str, trials: int, points: int) -> None:
    """Write a study of ``trials`` trials that were each evaluated up to ``points`` times."""
    _begin(home, name, trials, points)
    connection = sqlite3.connect(home.database)
    try:
        with connection:
            _write(connection, name, trials, points)
    finally:
        connection.close()


def _begin(home: Home, name: str, trials: int, points: int) -> None:
    """Begin the study as ``sweeper run`` does, on a tiny model and data of its own, up to its first trial."""
    from sweeper.executors.listener import Listener
    from sweeper.executors.stop_request import StopRequest
    from sweeper.study.context import begin
    from sweeper.study.resolve import resolve_study

    source = home.folder / "source"
    splits = {"train": range(100, 100 + ROWS), "validation": range(10, 42), "test": range(50, 82)}
    config = {
        "name": name,
        "model": str(tiny.build_model(source / "model")),
        "data": {
            split: str(tiny.write_rows(source / f"{split}.jsonl", (tiny.row("prompt_completion", n) for n in numbers)))
            for split, numbers in splits.items()
        },
        "technique": {"kind": "sft", "max_length": 64},
        "adapter": "lora",
        "search": {"n_trials": trials, "space": {key: of.model_dump(mode="json") for key, of in SPACE.items()}},
        "evaluation": {"points": points, "metrics": ["exact_match"]},
        "executor": {"device": "cpu"},
    }
    path = source / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    file = load_study(path)
    assert isinstance(file, StudyFile)
    with Database.open(home.database, create=True) as database:
        begin(file, resolve_study(file), "cpu", home, database, Listener(), StopRequest())
    with sqlite3.connect(home.database) as connection:  # the known-good starts would wait before the written trials
        connection.execute("DELETE FROM trials")
        for table in ("trial_user_attributes", "trial_system_attributes"):
            connection.execute(f"DELETE FROM {table}")
    connection.close()


def _write(connection: sqlite3.Connection, name: str, trials: int, points: int) -> None:
    (study,) = connection.execute("SELECT study_id FROM studies WHERE study_name = ?", (name,)).fetchone()
    (own,) = connection.execute("SELECT id FROM sweeper_studies WHERE name = ?", (name,)).fetchone()
    (taken,) = connection.execute("SELECT coalesce(max(trial_id), 0) FROM trials").fetchone()
    (owned,) = connection.execute("SELECT coalesce(max(id), 0) FROM sweeper_trials").fetchone()
    for number, parameters, curve, pruned in _drawn(trials, points):
        _write_to_optuna(connection, study, taken + 1 + number, number, parameters, curve, pruned)
        _write_to_sweeper(connection, own, owned + 1 + number, number, parameters, curve, pruned, points)
    connection.execute("UPDATE sweeper_studies SET changes = ? WHERE id = ?", (trials, own))


def _drawn(trials: int, points: int) -> Iterator[tuple[int, dict[str, Any], list[float], bool]]:
    """Draw trials whose loss falls to a floor that depends on the rate and the rank.

    Most of the weak ones are pruned after a third of their training, with as many evaluations in it as the others have.
    """
    rng = random.Random(1)
    for number in range(trials):
        parameters = {
            "learning_rate": 10 ** rng.uniform(-5, -2),
            "lora_rank": rng.choice((4, 8, 16, 32)),
            "batch_size": rng.choice((4, 8, 16)),
            "epochs": rng.randint(1, 3),
            "warmup_ratio": rng.uniform(0, 0.1),
        }
        floor = (
            1 + 0.4 * (math.log10(parameters["learning_rate"]) + 3.2) ** 2 + 0.6 / math.sqrt(parameters["lora_rank"])
        )
        floor += rng.gauss(0, 0.05)
        curve = [floor + 2 * math.exp(-5 * (at + 1) / points) + rng.gauss(0, 0.01) for at in range(points)]
        pruned = floor > 1.6 and number % 10 != 0
        yield number, parameters, curve, pruned


def _write_to_optuna(
    connection: sqlite3.Connection,
    study: int,
    key: int,
    number: int,
    parameters: dict[str, Any],
    curve: list[float],
    pruned: bool,
) -> None:
    begun, ended = _times(number)
    state = "PRUNED" if pruned else "COMPLETE"
    connection.execute(
        "INSERT INTO trials (trial_id, number, study_id, state, datetime_start, datetime_complete) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (key, number, study, state, begun, ended),
    )
    connection.executemany(
        "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) VALUES (?, ?, ?, ?)",
        [
            (key, name, _IN_OPTUNA[name].to_internal_repr(value), as_json(_IN_OPTUNA[name]))
            for name, value in parameters.items()
        ],
    )
    connection.executemany(
        "INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type) "
        "VALUES (?, ?, ?, 'FINITE')",
        [(key, at + 1, value) for at, value in enumerate(curve)],
    )
    if not pruned:
        connection.execute(
            "INSERT INTO trial_values (trial_id, objective, value, value_type) VALUES (?, 0, ?, 'FINITE')",
            (key, min(curve)),
        )


def _write_to_sweeper(
    connection: sqlite3.Connection,
    study: int,
    key: int,
    number: int,
    parameters: dict[str, Any],
    curve: list[float],
    pruned: bool,
    points: int,
) -> None:
    begun, ended = _times(number)
    steps = STEPS // 3 if pruned else STEPS
    row = {
        "id": key,
        "study_id": study,
        "number": number,
        "kind": "sampled",
        "seed": number,
        "parameters_json": json.dumps({**parameters, "lr_scheduler": "linear", "lora_alpha": 32.0}, sort_keys=True),
        "outcome": "pruned" if pruned else "complete",
        "reason": "worse than others at equal progress" if pruned else None,
        "value": None if pruned else min(curve),
        "metrics_json": json.dumps({"eval_loss": min(curve)}),
        "best_step": steps,
        "steps": steps,
        "total_steps": STEPS,
        "epochs_trained": steps / STEPS,
        "device": "cuda:0",
        "started_at": begun,
        "finished_at": ended,
        "train_seconds": 60.0 * steps / STEPS,
        "tokens": 1000 * steps,
        "peak_memory_bytes": 4_000_000_000,
        "changed": number + 1,
    }
    connection.execute(
        f"INSERT INTO sweeper_trials ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", list(row.values())
    )
    connection.executemany(
        "INSERT INTO sweeper_metrics (trial_id, step, name, value, seconds) VALUES (?, ?, 'eval_loss', ?, ?)",
        [(key, (at + 1) * steps // points, value, 0.4 * (at + 1) * steps / points) for at, value in enumerate(curve)],
    )


def _times(number: int) -> tuple[str, str]:
    begun = STARTED + timedelta(minutes=number)
    return tuple(f"{at:%Y-%m-%d %H:%M:%S.%f}" for at in (begun, begun + timedelta(seconds=60)))  # type: ignore[return-value]


def add_trial(home: Home, name: str) -> None:
    """Add a trial with a curve through sweeper's store and Optuna's, as a runner does."""
    database, study = _opened(home, name)
    trial = study.ask()
    parameters = {"learning_rate": 1e-4, "lora_rank": 8, "batch_size": 8, "epochs": 1, "warmup_ratio": 0.01}
    begun = datetime.now(UTC)
    spec = TrialSpec(
        study=name,
        number=trial.number,
        seed=trial.number,
        model=ModelConfig(name="smollm2-135m"),
        model_folder=home.folder,
        technique=SFT(),
        adapter=QLoRA(),
        train=home.folder / "train.jsonl",
        validation=home.folder / "validation.jsonl",
        hyperparameters=Hyperparameters(**parameters),
        evaluation=EvaluationConfig(),
        device="cpu",
        folder=home.folder / "trial",
    )
    database.trials.start(spec, TrialKind.SAMPLED, total_steps=STEPS)
    for step in range(10, STEPS + 1, 10):
        database.metrics.add(name, [(trial.number, step, {"eval_loss": 2 - step / STEPS}, float(step))])
        trial.report(2 - step / STEPS, 100 * step // STEPS)
    result = TrialResult(
        number=trial.number,
        outcome=Outcome.COMPLETE,
        value=1.0,
        steps=STEPS,
        total_steps=STEPS,
        started_at=begun.isoformat(),
        finished_at=datetime.now(UTC).isoformat(),
    )
    database.trials.finish(name, result)
    study.tell(trial, 1.0)


@cache
def _opened(home: Home, name: str) -> tuple[Database, optuna.Study]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(
        study_name=name, storage=open_storage(home.database), sampler=optuna.samplers.RandomSampler(seed=0)
    )
    return Database.open(home.database, create=False), study


def large_home(folder: Path, trials: int = 10_000, points: int = 50) -> Home:
    """Return a home with one such study, named ``large``."""
    home = Home(folder)
    write_large_study(home, "large", trials, points)
    return home
