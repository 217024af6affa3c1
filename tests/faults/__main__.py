"""Kill studies at random instants and say what was lost.

    python -m tests.faults [--storage sqlite|postgresql|workers|ray|all] [--kills N] [--seed 1] [--json]
                           [--pairs N] [--keep FOLDER] [--scene NAME ...] [--way WAY ...]

Ends with exit code 1 where anything did not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TORCHDYNAMO_DISABLE"] = "1"  # bitsandbytes would load all of TorchInductor into every process
sys.path.insert(0, str(Path(__file__).parents[1]))  # for tiny.py

from postgres_server import Postgres

from .campaign import CLUSTER_WAYS, SERVER_WAYS, SPREAD_WAYS, WAYS, Campaign, Tally
from .forks import Forks
from .scenes import CLUSTER, SCENES, SPREAD

if TYPE_CHECKING:
    from conftest import TwoNodes

STORAGES = {
    "sqlite": (SCENES, WAYS),
    "postgresql": (SCENES, SERVER_WAYS),
    "workers": (SPREAD, SPREAD_WAYS),
    "ray": (CLUSTER, CLUSTER_WAYS),
}
"""What is killed, and how, by what there is to be killed."""

KILLS = {"sqlite": 100, "postgresql": 30, "workers": 30, "ray": 30}
"""How often, unless the command says another number."""


@contextmanager
def two_nodes() -> Iterator[TwoNodes]:
    from conftest import TwoNodes

    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    nodes = TwoNodes()
    try:
        yield nodes
    finally:
        nodes.cluster.shutdown()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, help="100 with sqlite, 30 elsewhere if left out.")
    parser.add_argument("--storage", choices=[*STORAGES, "all"], default="sqlite")
    parser.add_argument("--scene", action="append", choices=[scene.name for scene in (*SCENES, *SPREAD, *CLUSTER)])
    ways = {way for _, ways in STORAGES.values() for way in ways}
    parser.add_argument("--way", action="append", choices=sorted(ways))
    parser.add_argument("--pairs", type=int, default=5, help="How often to kill one of two runners, beside those.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", type=Path, help="Where to work, and to leave the studies of which something broke.")
    asked = parser.parse_args()
    found = everywhere(asked) if asked.storage == "all" else {asked.storage: as_json(killed(asked))}
    if asked.json:
        print(json.dumps(found, indent=2))
    else:
        print("\n\n".join(f"{storage}\n{table(rows)}" for storage, rows in found.items()))
    return int(any(rows["breaches"] for rows in found.values()))


def killed(asked: argparse.Namespace) -> Tally:
    """Kill studies in one storage."""
    storage, (scenes, ways) = asked.storage, STORAGES[asked.storage]
    scenes = tuple(scene for scene in scenes if asked.scene is None or scene.name in asked.scene)
    with tempfile.TemporaryDirectory(prefix="sweeper-faults-") as temporary, Forks() as forks:
        folder = (asked.keep or Path(temporary)) / storage
        folder.mkdir(parents=True, exist_ok=True)
        with (
            Postgres() if storage == "postgresql" else nullcontext() as server,
            two_nodes() if storage == "ray" else nullcontext() as nodes,
        ):
            campaign = Campaign(folder, asked.seed, forks, lambda text: say(f"{storage}: {text}"), server, nodes)
            tally = campaign.run(asked.kills or KILLS[storage], scenes, asked.way or ways)
            campaign.notice(asked.pairs if scenes[0] in SCENES else 0)
    return tally


def everywhere(asked: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Kill studies in every storage, each in a process of its own, two at a time."""

    def apart(storage: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "tests.faults", "--storage", storage, "--json", "--seed", str(asked.seed)]
        command += ["--pairs", str(asked.pairs)]
        command += ["--kills", str(asked.kills)] if asked.kills else []
        command += ["--keep", str(asked.keep)] if asked.keep else []
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        begins = done.stdout.find(f'{{\n  "{storage}"')  # Ray may write there too
        if begins < 0:
            raise SystemExit(f"{storage}: ended with exit code {done.returncode}")
        rows: dict[str, Any] = json.JSONDecoder().raw_decode(done.stdout[begins:])[0][storage]
        return rows

    longest_first = ("ray", "sqlite", "workers", "postgresql")
    with ThreadPoolExecutor(max_workers=2) as pool:
        found = dict(zip(longest_first, pool.map(apart, longest_first), strict=True))
    return {storage: found[storage] for storage in STORAGES}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def as_json(tally: Tally) -> dict[str, Any]:
    kinds = ("lost", "duplicate", "zombie", "leftover", "count", "disagreement", "different", "fault")
    noticed = tally.noticed_s
    return {
        "kills": dict(tally.kills),
        "studies": tally.studies,
        "finished trials": tally.finished,
        **{kind: tally.kinds[kind] for kind in kinds},
        "steps repeated (%)": round(100 * tally.repeated / tally.steps, 1) if tally.steps else "not counted",
        "taken over (s)": {"median": round(median(noticed), 1), "most": round(max(noticed), 1)} if noticed else None,
        "found no server": tally.unanswered,
        "seconds": round(tally.seconds, 1),
        "breaches": tally.breaches,
    }


def table(rows: dict[str, Any]) -> str:
    rows = dict(rows)
    kills, breaches, noticed = rows.pop("kills"), rows.pop("breaches"), rows.pop("taken over (s)")
    if noticed:
        rows["taken over"] = f"after {noticed['median']} s in the median, {noticed['most']} s at most"
    by_way = ", ".join(f"{count} by {way}" for way, count in sorted(kills.items()))
    lines = [f"{'kills':22} {sum(kills.values())} ({by_way})"]
    return "\n".join(lines + [f"{name:22} {value}" for name, value in rows.items()] + breaches)


if __name__ == "__main__":
    sys.exit(main())
