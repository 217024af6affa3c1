"""Two ways of waiting, on a machine that is idle and on one that other work keeps busy.

    python tests/benchmarks/threads.py [--loads 0,1,15] [--rounds 5]

Measures layers trained per second (a feed-forward block with a LoRA beside it, forward and backward, in float32) in
processes of their own: with OpenMP as it comes, with threads that sleep while they wait (what importing sweeper sets),
and with one thread. `--loads` is how many busy processes run beside them. The ways take turns, and what counts is the
median ratio to the first way within a round: an absolute rate means nothing on a shared machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
WAYS: dict[str, dict[str, str]] = {
    "as it comes": {"OMP_WAIT_POLICY": "undefined"},
    "waiting asleep": {},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
WORK = """
import os, sys, time
if os.environ.get("OMP_WAIT_POLICY") == "undefined":
    del os.environ["OMP_WAIT_POLICY"]
else:
    import sweeper
import torch
seconds, steps = float(sys.argv[1]), 0
x = torch.randn(160, 576, requires_grad=True)
up, down = torch.nn.Linear(576, 1536).requires_grad_(False), torch.nn.Linear(1536, 576).requires_grad_(False)
a, b = torch.randn(16, 576, requires_grad=True), torch.zeros(1536, 16, requires_grad=True)
def step():
    down(torch.nn.functional.silu(up(x) + x @ a.T @ b.T)).sum().backward()
step()
begun = time.perf_counter()
while time.perf_counter() - begun < seconds:
    step()
    steps += 1
print(steps / (time.perf_counter() - begun))
"""


def main() -> None:
    """Print a row of ratios for each load."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loads", default="0,1,15", help="busy processes beside the measured one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement")
    options = parser.parse_args()
    print(f"| busy processes on {os.cpu_count()} cores | {' | '.join(WAYS)} |\n|{' --- |' * (len(WAYS) + 1)}")
    for load in map(int, options.loads.split(",")):
        with _busy(load):
            rounds = [[_rate(way, options.seconds) for way in WAYS.values()] for _ in range(options.rounds)]
        ratios = [median(one[place] / one[0] for one in rounds) for place in range(len(WAYS))]
        best = [max(one[place] for one in rounds) for place in range(len(WAYS))]
        cells = (f"{ratio:.2f} (best {rate:.1f}/s)" for ratio, rate in zip(ratios, best, strict=True))
        print(f"| {load} | {' | '.join(cells)} |", flush=True)


def _rate(settings: dict[str, str], seconds: float) -> float:
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS} | settings
    command = [sys.executable, "-c", WORK, str(seconds)]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


@contextmanager
def _busy(count: int) -> Iterator[None]:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
