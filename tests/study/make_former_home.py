"""Makes ``former_home.tar.xz``: a home as the code before the modules were moved (commit 811cdb9) wrote it.

Run with that commit checked out, its ``tests`` folder on the path, and an empty folder for the work:

    PYTHONPATH=tests python make_former_home.py WORK former_home.tar.xz

The home holds three studies on a tiny model, which lies beside it: ``done`` is finished and registered; ``packed`` and
``inline`` were stopped, with complete and pruned trials, trials on disk with their checkpoints, and a queued one.
Paths below WORK are written as ``@ROOT@`` in the archive, which ``former_home.py`` undoes.
"""

from __future__ import annotations

import sqlite3
import sys
import tarfile
from contextlib import suppress
from pathlib import Path

import tiny
import yaml
from sweeper.executors.stopping import StopRequest
from sweeper.orders import give
from sweeper.run import run_study

from sweeper.config.loader import load_study
from sweeper.errors import StudyInterrupted
from sweeper.executors.base import Silent
from sweeper.paths import Home
from sweeper.store import Database, OrderKind

PLACEHOLDER = "@ROOT@"
RATES = (2e-2, 1e-2, 1e-5, 3e-2)
"""Learning rates that run first; the third learns too little to be kept on."""


class Stopping(Silent):
    """Orders a trial at each step of trial 3, and asks to stop at its step ``stop_at``."""

    def __init__(self, home: Home, study: str, stop_at: int) -> None:
        self.home, self.study, self.stop_at = home, study, stop_at
        self.stop = StopRequest()

    def trial_reported(self, number, step, metrics):
        print(self.study, number, step, {name: round(value, 4) for name, value in metrics.items()}, flush=True)
        if number != 3 or "loss" not in metrics:
            return
        if step < self.stop_at:
            with Database.open(self.home.database, create=False) as database:
                values = {"parameters": {"learning_rate": 5e-3}}
                give(self.home, database, self.study, OrderKind.ENQUEUE, actor="tester", data=values)
        else:
            self.stop.set()

    def trial_ended(self, result):
        print(self.study, result.number, result.outcome, result.reason, flush=True)

    def note(self, text):
        print(self.study, text, flush=True)


def write_study(root: Path, name: str, **search) -> Path:
    executor = {"kind": "inline"} if name == "inline" else {"kind": "packed", "slots": 2}
    data = {split: f"data/{split}.jsonl" for split in ("train", "validation", "test")}
    study = {
        "name": name,
        "model": "./model",
        "data": data,
        "technique": {"kind": "sft", "max_length": 64},
        "adapter": {"kind": "lora"},
        "search": {
            "space": {
                "learning_rate": {"low": 1e-5, "high": 3e-2, "log": True},
                "lora_rank": 2,
                "batch_size": 8,
                "epochs": 2,
                "lora_alpha": 8,
                "lora_dropout": 0.0,
            },
            "known_good": False,
            **search,
        },
        "evaluation": {"points": 3, "metrics": ["exact_match", "perplexity"], "max_new_tokens": 3, "candidates": 2},
        "executor": {**executor, "device": "cpu"},
        "seed": 3,
    }
    path = root / f"{name}.yaml"
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    return path


def make(root: Path) -> None:
    tiny.build_model(root / "model", hidden_size=16, intermediate_size=32, num_attention_heads=2, num_key_value_heads=1)
    splits = {"train": range(100, 124), "validation": range(300, 308), "test": range(500, 510)}
    for split, numbers in splits.items():
        tiny.write_rows(root / f"data/{split}.jsonl", (tiny.row("same_answer", number) for number in numbers))
    home = Home(root / "home")
    run_study(load_study(write_study(root, "done", n_trials=1)), home=home, force=True)
    pruners = {
        "packed": {"kind": "asha", "eta": 2, "start": 0.3, "promote": True},
        "inline": {"kind": "percentile", "percentile": 50, "startup_trials": 1},
    }
    for name, pruner in pruners.items():
        search = {"n_trials": 6, "pruner": pruner, "enqueue": [{"learning_rate": rate} for rate in RATES]}
        stopping = Stopping(home, name, stop_at=3 if name == "packed" else 2)
        with suppress(StudyInterrupted):
            run_study(load_study(write_study(root, name, **search)), home=home, listener=stopping, stop=stopping.stop)
            raise SystemExit(f"{name} was not stopped")


def hide_root(root: Path) -> None:
    """Write the root as a placeholder, in the database and in the JSON files that have no recorded checksum."""
    with sqlite3.connect(root / "home" / "sweeper.db") as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for _, column, kind, *_ in connection.execute(f"PRAGMA table_info({table})").fetchall():
                if any(word in kind.upper() for word in ("CHAR", "TEXT", "JSON")):
                    connection.execute(
                        f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?) WHERE instr("{column}", ?)',
                        (str(root), PLACEHOLDER, str(root)),
                    )
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # other connections may still be open
    connection.close()
    for path in (root / "home").rglob("*.json"):
        if not {"adapter", "frozen"} & set(path.relative_to(root).parts):
            path.write_text(path.read_text(encoding="utf-8").replace(str(root), PLACEHOLDER), encoding="utf-8")


if __name__ == "__main__":
    work = Path(sys.argv[1]).resolve()
    make(work)
    hide_root(work)
    with tarfile.open(sys.argv[2], "w:xz", preset=9) as archive:
        for part in ("home", "model", "data"):
            archive.add(
                work / part,
                part,
                filter=lambda entry: None if entry.name.endswith((".lock", "-wal", "-shm")) else entry,
            )
