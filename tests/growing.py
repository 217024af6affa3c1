"""One study from a laptop to a cluster: begun on SQLite, moved to PostgreSQL, ended on two nodes of Ray.

    python tests/growing.py [--trials 8] [--keep FOLDER]

Beside it the same study runs undisturbed on SQLite. Every step is a command that a user would give. Ends with exit
code 1 where the two do not end alike: as many trials, each once, and an adapter registered.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", RAY_USAGE_STATS_ENABLED="0")

import tiny
import yaml
from conftest import TwoNodes
from postgres_server import Postgres

STUDY = "growing"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/growing.py", description=__doc__)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--keep", type=Path, help="where to work, and to leave everything")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sweeper-growing-", ignore_cleanup_errors=True) as temporary:
        folder = (asked.keep or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        return grow(folder, asked.trials)


def grow(folder: Path, trials: int) -> int:
    """Run both studies, show how each ended, and return the exit code."""
    study = study_on(folder, trials)
    packed = {"kind": "packed", "device": "cpu", "slots": 2, "checkpoint_s": 1}
    print("1. begun on SQLite, one process; stopped by Ctrl-C in the middle", flush=True)
    stop_midway(folder, write(folder, study, packed), trials)
    begun = ended(folder, "home")
    print(f"   {begun['done']} of {trials} trials have ended", flush=True)
    with Postgres() as server, server.database() as database:
        print("2. moved to PostgreSQL", flush=True)
        print(indented(sweeper(folder, "home", "migrate-storage", database.written).stdout), flush=True)
        print(
            "3. continued on a Ray cluster of two nodes: another executor in the study file, and `run` again",
            flush=True,
        )
        nodes = TwoNodes()
        try:
            ray = {"kind": "ray", "device": "cpu", "address": nodes.address, "workers": 2, "slots": 1}
            sweeper(folder, "home", "run", str(write(folder, study, ray)), "--force")
        finally:
            shut_down(nodes)
        grown = ended(folder, "home")
    print("4. the same study undisturbed, on SQLite in one process", flush=True)
    sweeper(folder, "plain", "run", str(write(folder, study, packed)), "--force")
    plain = ended(folder, "plain")
    for name, end in (("grown", grown), ("undisturbed", plain)):
        print(f"   {name:12} {json.dumps(end)}", flush=True)
    alike = all(grown[key] == plain[key] for key in ("state", "done", "numbers", "registered"))
    print("they end alike" if alike else "THEY DO NOT END ALIKE", flush=True)
    return int(not alike)


def study_on(folder: Path, trials: int) -> dict[str, Any]:
    """Return a study on a tiny model and its data, both made here."""
    splits = {"train": range(100, 124), "validation": range(300, 308), "test": range(500, 510)}
    data = {
        name: str(tiny.write_rows(folder / f"{name}.jsonl", (tiny.row("prompt_completion", n) for n in numbers)))
        for name, numbers in splits.items()
    }
    space = {"learning_rate": {"low": 1e-3, "high": 3e-2, "log": True}, "lora_rank": [2, 4], "batch_size": 8}
    return {
        "name": STUDY,
        "model": str(tiny.build_model(folder / "model")),
        "data": data,
        "technique": {"kind": "sft", "max_length": 64},
        "adapter": "lora",
        "search": {"space": {**space, "epochs": 20}, "n_trials": trials, "confirm": 0, "pruner": "none"},
        "evaluation": {"points": 3, "metrics": ["exact_match", "perplexity"], "max_new_tokens": 6, "candidates": 2},
        "seed": 3,
    }


def write(folder: Path, study: Mapping[str, Any], executor: Mapping[str, Any]) -> Path:
    """Write the study file, which is one file that changes in one place."""
    path = folder / f"{STUDY}.yaml"
    path.write_text(yaml.safe_dump({**study, "executor": dict(executor)}), encoding="utf-8")
    return path


def sweeper(folder: Path, home: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "sweeper", *arguments], env=environment(folder, home), text=True, capture_output=True
    )
    if done.returncode:
        raise SystemExit(f"sweeper {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def environment(folder: Path, home: str) -> dict[str, str]:
    return {**os.environ, "SWEEPER_HOME": str(folder / home)}


def stop_midway(folder: Path, file: Path, trials: int) -> None:
    """Begin the study, and press Ctrl-C when a quarter of its trials have ended."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sweeper", "run", str(file)],
        env=environment(folder, "home"),
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    results = folder / "home" / "studies" / STUDY / "trials"
    while process.poll() is None and len(list(results.glob("*/result.json"))) < max(1, trials // 4):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    if process.wait() != 130:
        raise SystemExit(f"a stopped `sweeper run` ended with {process.returncode} instead of 130")


def ended(folder: Path, home: str) -> dict[str, Any]:
    """Return how the study of a home stands, as its commands tell it."""
    found = [one for one in json.loads(sweeper(folder, home, "status", "--json").stdout) if one["name"] == STUDY]
    all_trials = json.loads(sweeper(folder, home, "trials", STUDY, "--json").stdout)
    complete = [one for one in all_trials if one["outcome"] == "complete"]
    registered = json.loads(sweeper(folder, home, "adapters", "list", "--json").stdout)
    return {
        "state": found[0]["state"],
        "done": found[0]["done"],
        "numbers": len({json.dumps(one["parameters"], sort_keys=True) + str(one["seed"]) for one in complete}),
        "registered": [one["name"] for one in registered],
        "best": found[0]["best"],
    }


def indented(text: str) -> str:
    return "\n".join(f"   {line}" for line in text.strip().splitlines())


def shut_down(nodes: TwoNodes) -> None:
    import ray

    ray.shutdown()
    nodes.cluster.shutdown()


if __name__ == "__main__":
    sys.exit(main())
