"""Throughput of a study's storage: ask, report and tell per second, beside plain Optuna on the same machine.

    python tests/benchmarks/store.py [--quick] [--seconds 10] [--sampler random|default]
    python tests/benchmarks/store.py --finish [--trials 2000] [--workers 32] [--limit-s 300]

The first form fills a study with 100, 1,000 and 10,000 finished trials and lets 1, 8 and 32 processes run short trials
in it: one ask, five reports, each with the question whether to prune, and one tell. sweeper does more in them: it keeps
its own records, leases and turns, all of which stand in the figures. Optuna runs as its tutorials have it, on SQLite
with its own settings and in WAL mode, and on PostgreSQL. The history is read before; how long that takes stands above.

The second form lets as many processes finish an empty study on one SQLite file, counts what is stored, and lets Optuna
do the same until the limit. Exit code 1 if a count is wrong, an error came through, or it is not twice as fast.

Not measured: Optuna's gRPC storage proxy. It serves all workers from one process of Python.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from store_sides import REPORTS, STUDY, Plain, Side, Sweeper, live

sys.path.append(str(Path(__file__).parents[1]))
from postgres_server import Postgres

from sweeper.database_url import PostgresUrl
from sweeper.search.storages.open import open_storage
from sweeper.store import Database

GOAL = 2.0
KINDS = ("ask", "report", "tell")
COLUMNS = (*KINDS, "trials")
FORK = multiprocessing.get_context("fork")
Rates = dict[str, float]


def together(workers: int, work: Callable[[], Any]) -> list[Any]:
    """Call ``work`` in so many processes at once, and return what they return."""
    answers = FORK.SimpleQueue()
    processes = [FORK.Process(target=lambda: answers.put(work())) for _ in range(workers)]
    for process in processes:
        process.start()
    found = [answers.get() for _ in processes]
    for process in processes:
        process.join()
    return found


def rates(side: Side, workers: int, seconds: float) -> Rates:
    """Return the calls per second of all workers by their kind, and the trials per second."""
    began = time.monotonic()
    told = together(workers, lambda: live(side, lambda: time.monotonic() - began > seconds))
    taken = time.monotonic() - began
    ended = sum(ended for ended, _, _ in told)
    spent = {kind: sum(of[kind] for _, of, _ in told) for kind in KINDS}
    calls = {"ask": ended, "report": REPORTS * ended, "tell": ended}
    faults = Counter(fault[:60] for _, _, found in told for fault in found)
    for fault, times in faults.items():
        print(f"      {times} x {fault}")
    return {kind: workers * calls[kind] / spent[kind] for kind in KINDS if spent[kind]} | {"trials": ended / taken}


def first_read_s(side: Side) -> float:
    """Return how long a process takes to read a study for the first time."""
    began = time.perf_counter()
    side.open()
    return time.perf_counter() - began


def table(backend: str, sides: dict[str, Callable[[], Side]], options: argparse.Namespace) -> None:
    """Measure every side in turn for every number of trials and of workers."""
    for size in options.sizes:
        opened: dict[str, Side] = {}
        print(f"\n{backend}, {size:,} finished trials of {REPORTS} reports")
        for name, make in sides.items():
            opened[name] = side = make()
            side.create()
            side.fill(size)
            print(f"  {name:22} first read {first_read_s(side):8.2f} s")
        print(f"  {'':22} {'workers':>7} " + " ".join(f"{kind + '/s':>9}" for kind in COLUMNS) + "   ratios")
        for workers in options.workers:
            base: Rates = {}
            for name, side in opened.items():
                side.rest()
                found = rates(side, workers, options.seconds)
                base = base or found
                times = " ".join(
                    f"{found.get(kind, 0) / base[kind]:.1f}x" for kind in (*KINDS, "trials") if kind in base
                )
                columns = " ".join(f"{found.get(kind, 0):9.1f}" for kind in (*KINDS, "trials"))
                print(f"  {name:22} {workers:7} {columns}   {times}", flush=True)


def measure(options: argparse.Namespace) -> int:
    """Print the first form's tables."""
    with tempfile.TemporaryDirectory() as folder, Postgres() as server, ExitStack() as stack:
        names = iter(range(1_000_000))

        def path() -> Path:
            return Path(folder) / f"{next(names)}.db"

        def database() -> PostgresUrl:
            return stack.enter_context(server.database())

        endless = sys.maxsize
        table(
            "SQLite",
            {
                "Optuna": lambda: Plain(f"sqlite:///{path()}", options.sampler, endless),
                "Optuna, WAL": lambda: Plain(f"sqlite:///{path()}", options.sampler, endless, wal=True),
                "sweeper, all of it": lambda: Sweeper(path(), options.sampler, 1_000_000),
            },
            options,
        )
        table(
            "PostgreSQL",
            {
                "Optuna": lambda: Plain(database().written, options.sampler, endless),
                "sweeper, all of it": lambda: Sweeper(database(), options.sampler, 1_000_000),
            },
            options,
        )
    return 0


def finish(options: argparse.Namespace) -> int:
    """Let many processes finish one study on one SQLite file, then let Optuna try."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sweeper.db"
        side: Side = Sweeper(path, options.sampler, options.trials)
        speed, faults = _raced(side, options.workers[-1], sys.maxsize)
        print(f"{'sweeper, all of it':22} {speed:8.2f} trials/s")
        wrong = faults + _miscounted(path, options.trials)
        share = -(-options.trials // options.workers[-1])
        best = 0.0
        for name, wal in (("Optuna", False), ("Optuna, WAL", True)):
            plain = Plain(f"sqlite:///{Path(folder) / name}.db", options.sampler, share, wal=wal)
            theirs, lost = _raced(plain, options.workers[-1], options.limit_s)
            best = max(best, theirs if name == "Optuna" else 0.0)
            print(f"{name:22} {theirs:8.2f} trials/s   sweeper is {speed / theirs:.1f} times as fast", flush=True)
            for fault, times in Counter(fault[:90] for fault in lost).items():
                print(f"      {times} x {fault}")
    for fault in wrong:
        print(f"wrong: {fault}")
    if speed < GOAL * best:
        print(f"wrong: sweeper is to be {GOAL:g} times as fast")
    return 1 if wrong or speed < GOAL * best else 0


def _raced(side: Side, workers: int, limit_s: float) -> tuple[float, list[str]]:
    """Let processes run the trials of an empty study; return trials per second, and what was raised."""
    side.create()
    began = time.monotonic()

    def work() -> tuple[int, dict[str, float], list[str]]:
        side.open()
        return live(side, lambda: time.monotonic() - began > limit_s)

    told = together(workers, work)
    taken = time.monotonic() - began
    calls = {kind: sum(spent[kind] for _, spent, _ in told) for kind in KINDS}
    ended = sum(ended for ended, _, _ in told)
    print(
        f"{ended} trials in {taken:.1f} s; of the workers' time "
        + ", ".join(f"{k} {v:.0f} s" for k, v in calls.items())
    )
    return ended / taken, [fault for _, _, faults in told for fault in faults]


def _miscounted(path: Path, trials: int) -> list[str]:
    """Return what is not as it should be after ``trials`` trials."""
    wrong = []
    found = optuna.load_study(study_name=STUDY, storage=open_storage(path)).get_trials(deepcopy=False)
    states = Counter(trial.state for trial in found)
    if states != {TrialState.COMPLETE: trials}:
        wrong.append(f"Optuna's trials: {dict(states)}")
    if any(len(trial.intermediate_values) != REPORTS for trial in found):
        wrong.append("a trial in Optuna's tables has too few reports")
    with Database.open(path, create=False) as database:
        numbers = [trial.number for trial in database.trials.all(STUDY) if trial.outcome == "complete"]
        points, leases = len(database.metrics.get(STUDY)), len(database.leases.all(STUDY))
    if numbers != list(range(trials)):
        wrong.append(f"{len(numbers)} complete trials in sweeper's tables")
    if points != REPORTS * trials:
        wrong.append(f"{points} points of curves in sweeper's tables")
    if leases:
        wrong.append(f"{leases} leases were left")
    return wrong


def main() -> int:
    """Read the options, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a minute or two, to see that it works")
    parser.add_argument("--finish", action="store_true", help="finish a study with many processes")
    parser.add_argument("--seconds", type=float, help="how long each figure is measured")
    parser.add_argument("--sampler", choices=("random", "default"), default="random")
    parser.add_argument("--trials", type=int, help="how many --finish runs")
    parser.add_argument("--workers", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--sizes", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--limit-s", type=float, help="how long Optuna may take with --finish")
    options = parser.parse_args()
    options.seconds = options.seconds or (2.0 if options.quick else 10.0)
    options.sizes = options.sizes or ([100, 1_000] if options.quick else [100, 1_000, 10_000])
    options.workers = options.workers or ([1, 8] if options.quick and not options.finish else [1, 8, 32])
    options.trials = options.trials or (200 if options.quick else 2_000)
    options.limit_s = options.limit_s or (30.0 if options.quick else 300.0)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.disable(logging.WARNING)
    return finish(options) if options.finish else measure(options)


if __name__ == "__main__":
    sys.exit(main())
