"""Kill studies at random instants and say what was lost.

    python -m tests.faults [--storage sqlite|postgresql|workers|ray|all] [--kills 100] [--seed 1] [--json]
                           [--keep FOLDER] [--scene NAME ...] [--way WAY ...]

Ends with exit code 1 where anything did not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
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
    parser.add_argument("--kills", type=int, help="In every storage asked for; 100 with sqlite, 30 elsewhere.")
    parser.add_argument("--storage", choices=[*STORAGES, "all"], default="sqlite")
    parser.add_argument("--scene", action="append", choices=[scene.name for scene in (*SCENES, *SPREAD, *CLUSTER)])
    ways = {way for _, ways in STORAGES.values() for way in ways}
    parser.add_argument("--way", action="append", choices=sorted(ways))
    parser.add_argument("--pairs", type=int, default=5, help="How often to kill one of two runners, beside those.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", type=Path, help="Where to work, and to leave the studies of which something broke.")
    asked = parser.parse_args()
    tallies = {}
    with tempfile.TemporaryDirectory(prefix="sweeper-faults-") as temporary, Forks() as forks:
        for storage in STORAGES if asked.storage == "all" else (asked.storage,):
            folder = (asked.keep or Path(temporary)) / storage
            folder.mkdir(parents=True, exist_ok=True)
            scenes, ways = STORAGES[storage]
            scenes = tuple(scene for scene in scenes if asked.scene is None or scene.name in asked.scene)
            with (
                Postgres() if storage == "postgresql" else nullcontext() as server,
                two_nodes() if storage == "ray" else nullcontext() as nodes,
            ):
                campaign = Campaign(folder, asked.seed, forks, say, server, nodes)
                kills = asked.kills or (100 if storage == "sqlite" else 30)
                tallies[storage] = campaign.run(kills, scenes, asked.way or ways)
                campaign.notice(asked.pairs if scenes[0] in SCENES else 0)
    if asked.json:
        print(json.dumps({storage: as_json(tally) for storage, tally in tallies.items()}, indent=2))
    else:
        print("\n\n".join(f"{storage}\n{table(tally)}" for storage, tally in tallies.items()))
    return int(any(tally.breaches for tally in tallies.values()))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def as_json(tally: Tally) -> dict[str, object]:
    kinds = ("lost", "duplicate", "zombie", "leftover", "count", "disagreement", "different", "fault")
    noticed = tally.noticed_s
    return {
        "kills": dict(tally.kills),
        "studies": tally.studies,
        "finished trials": tally.finished,
        **{kind: tally.kinds[kind] for kind in kinds},
        "steps repeated (%)": round(100 * tally.repeated / tally.steps, 1) if tally.steps else "not counted",
        "taken over (s)": {"median": round(median(noticed), 1), "most": round(max(noticed), 1)} if noticed else None,
        "seconds": round(tally.seconds, 1),
        "breaches": tally.breaches,
    }


def table(tally: Tally) -> str:
    rows = as_json(tally)
    kills = rows.pop("kills")
    assert isinstance(kills, dict)
    rows.pop("breaches")
    noticed = rows.pop("taken over (s)")
    if isinstance(noticed, dict):
        rows["taken over"] = f"after {noticed['median']} s in the median, {noticed['most']} s at most"
    by_way = ", ".join(f"{count} by {way}" for way, count in sorted(kills.items()))
    lines = [f"{'kills':22} {sum(kills.values())} ({by_way})"]
    return "\n".join(lines + [f"{name:22} {value}" for name, value in rows.items()])


if __name__ == "__main__":
    sys.exit(main())
