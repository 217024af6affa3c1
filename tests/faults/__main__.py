"""Kill studies at random instants and say what was lost.

    python -m tests.faults [--kills 100] [--storage sqlite|postgresql|all] [--seed 1] [--json] [--keep FOLDER]

Ends with exit code 1 where anything did not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))  # for tiny.py

from postgres_server import Postgres

from .campaign import SERVER_WAYS, WAYS, Campaign, Tally
from .forks import Forks
from .scenes import SCENES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--storage", choices=["sqlite", "postgresql", "all"], default="sqlite")
    parser.add_argument("--scene", action="append", choices=[scene.name for scene in SCENES])
    parser.add_argument("--way", action="append", choices=sorted({*WAYS, *SERVER_WAYS}))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", type=Path, help="Where to work, and to leave the studies of which something broke.")
    asked = parser.parse_args()
    scenes = [scene for scene in SCENES if asked.scene is None or scene.name in asked.scene]
    tallies = {}
    with tempfile.TemporaryDirectory(prefix="sweeper-faults-") as temporary, Forks() as forks:
        for storage in ("sqlite", "postgresql") if asked.storage == "all" else (asked.storage,):
            folder = (asked.keep or Path(temporary)) / storage
            folder.mkdir(parents=True, exist_ok=True)
            with Postgres() if storage == "postgresql" else nullcontext() as server:
                campaign = Campaign(folder, asked.seed, forks, say, server)
                tallies[storage] = campaign.run(asked.kills, scenes, asked.way or ())
    if asked.json:
        print(json.dumps({storage: as_json(tally) for storage, tally in tallies.items()}, indent=2))
    else:
        print("\n\n".join(f"{storage}\n{table(tally)}" for storage, tally in tallies.items()))
    return int(any(tally.breaches for tally in tallies.values()))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def as_json(tally: Tally) -> dict[str, object]:
    kinds = ("lost", "duplicate", "zombie", "leftover", "count", "disagreement", "different", "fault")
    return {
        "kills": dict(tally.kills),
        "studies": tally.studies,
        "finished trials": tally.finished,
        **{kind: tally.kinds[kind] for kind in kinds},
        "steps repeated (%)": round(100 * tally.repeated / max(1, tally.steps), 1),
        "seconds": round(tally.seconds, 1),
        "breaches": tally.breaches,
    }


def table(tally: Tally) -> str:
    rows = as_json(tally)
    kills = rows.pop("kills")
    assert isinstance(kills, dict)
    rows.pop("breaches")
    by_way = ", ".join(f"{count} by {way}" for way, count in sorted(kills.items()))
    lines = [f"{'kills':22} {sum(kills.values())} ({by_way})"]
    return "\n".join(lines + [f"{name:22} {value}" for name, value in rows.items()])


if __name__ == "__main__":
    sys.exit(main())
