"""Kill studies at random instants and say what was lost.

    python -m tests.faults [--kills 100] [--storage sqlite] [--seed 1] [--json] [--keep FOLDER]

Ends with exit code 1 where anything did not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))  # for tiny.py

from .campaign import Campaign, Tally
from .forks import Forks
from .scenes import SCENES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--storage", choices=["sqlite"], default="sqlite")
    parser.add_argument("--scene", action="append", choices=[scene.name for scene in SCENES])
    parser.add_argument("--way", action="append", choices=["delay", "line", "operation", "power"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", type=Path, help="Where to work, and to leave the studies of which something broke.")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sweeper-faults-") as temporary, Forks() as forks:
        folder = asked.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        campaign = Campaign(folder, asked.seed, forks, lambda text: print(text, file=sys.stderr, flush=True))
        scenes = [scene for scene in SCENES if asked.scene is None or scene.name in asked.scene]
        tally = campaign.run(asked.kills, scenes, asked.way or ("delay", "line", "operation", "power"))
    print(json.dumps(as_json(tally), indent=2) if asked.json else table(tally))
    return int(bool(tally.breaches))


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
