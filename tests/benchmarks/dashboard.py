"""The dashboard on a study of 10,000 trials, beside optuna-dashboard on the same file.

    python tests/benchmarks/dashboard.py [--trials 10000] [--points 50] [--writer-seconds 60]

Three tables. First, for every page a server of its own: seconds from the browser's request until the page is sent
whole, for the first visitor and after a trial was added, with the bytes sent and the server's memory; below it what
optuna-dashboard takes to answer for the same study, at first and again after a trial was added and its cache has
expired. Then the trials per second that a writer stores alone and while two browsers watch, in turns, so that what
else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import psutil
from dashboard_client import Client
from large_study import add_trial, large_home

from sweeper.paths import Home
from sweeper.store import Database

STUDY = "large"
PAGES = {
    "studies": ("", ""),
    "study, overview": ("study", f"study={STUDY}"),
    "study, curves": ("study", f"study={STUDY}&section=Curves"),
    "study, parameters": ("study", f"study={STUDY}&section=Parameters"),
    "study, schedule": ("study", f"study={STUDY}&section=Schedule"),
    "study, scores": ("study", f"study={STUDY}&section=Scores"),
    "study, file": ("study", f"study={STUDY}&section=Study file"),
    "trial": ("trial", f"study={STUDY}&trial=0"),
    "compare": ("compare", f"subjects={STUDY}:0,{STUDY}:10"),
    "control": ("control", f"study={STUDY}"),
    "data": ("data", f"study={STUDY}"),
    "adapters": ("adapters", ""),
    "playground": ("playground", ""),
}
SHARE = 0.1
"""Of optuna-dashboard's time a page may take."""

WRITES = 0.95
"""Of its rate alone the writer has to keep."""

ROUNDS = 4
_CACHE_S = 10.0
_MIB = 1024**2


def main() -> int:
    """Print the tables."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        home = large_home(Path(folder), arguments.trials, arguments.points)
        print(f"{arguments.trials:,} trials x {arguments.points} values, {home.database.stat().st_size / _MIB:.0f} MiB")
        print(f"{'':22} {'first (s)':>10} {'again (s)':>10} {'sent (MB)':>10} {'memory (MiB)':>13}")
        first, again = _optuna_dashboard(home)
        slow = [name for name, page in PAGES.items() if _page(home, name, page) > SHARE * min(first, again)]
        kept = _writer(home, arguments.writer_seconds)
    print(f"pages slower than {SHARE:.0%} of optuna-dashboard: {', '.join(slow) or 'none'}")
    return int(bool(slow) or kept < WRITES)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--writer-seconds", type=float, default=60.0)
    return parser.parse_args()


def _page(home: Home, name: str, page: tuple[str, str]) -> float:
    """Measure a page on a fresh server; return the seconds of its first visit."""
    with _served(home, _sweeper) as (port, server), Client(port) as browser:
        first, sent = browser.open(*page)
        _change(home)
        again = browser.refresh()
        print(_line(name, first, again, sent, server))
        return first


def _optuna_dashboard(home: Home) -> tuple[float, float]:
    """Measure what optuna-dashboard's page of a study asks for; return the seconds at first and after a change."""
    with _served(home, _optuna) as (port, server):
        address = f"http://127.0.0.1:{port}/api/studies/1?after=0"
        first, sent = _fetched(address)
        time.sleep(_CACHE_S + 1)
        _change(home)
        again, _ = _fetched(address)
        print(_line("optuna-dashboard", first, again, sent, server))
        return first, again


def _fetched(address: str) -> tuple[float, int]:
    begun = time.perf_counter()
    with urlopen(address, timeout=600) as answer:
        sent = len(answer.read())
    return time.perf_counter() - begun, sent


def _line(name: str, first: float, again: float, sent: int, server: psutil.Process) -> str:
    members = [server, *server.children(recursive=True)]
    memory = sum(member.memory_info().rss for member in members)
    return f"{name:22} {first:10.2f} {again:10.2f} {sent / 1e6:10.1f} {memory / _MIB:13.0f}"


def _change(home: Home) -> None:
    """Add a trial, in a process of its own, as a runner would."""
    code = "import sys; from pathlib import Path; from large_study import add_trial; from sweeper.paths import Home; "
    code += f"add_trial(Home(Path(sys.argv[1])), {STUDY!r})"
    subprocess.run([sys.executable, "-c", code, str(home.folder)], check=True, cwd=Path(__file__).parent)


def _writer(home: Home, seconds: float) -> float:
    """Measure a writer alone and watched, in turns; return which share of its rate it keeps."""
    alone, watched = [], []
    with _served(home, _sweeper) as (port, _):
        for _ in range(ROUNDS):
            alone.append(_rate(home, seconds / 2 / ROUNDS))
            with _browsers(port, 2):
                watched.append(_rate(home, seconds / 2 / ROUNDS))
    kept = statistics.median(w / a for w, a in zip(watched, alone, strict=True))
    print(f"writer: {statistics.median(alone):.1f} trials/s alone, {statistics.median(watched):.1f} with two browsers")
    print(f"it keeps {kept:.0%} of its rate (median of {ROUNDS} turns)")
    return kept


def _rate(home: Home, seconds: float) -> float:
    """Return the trials per second that are stored while the study is held as its runner holds it."""
    begun, stored = time.perf_counter(), 0
    with Database.open(home.database, create=False) as database:
        database.workers.join(STUDY, "benchmark", "cpu", expires_in_s=60)
        while time.perf_counter() - begun < seconds:
            add_trial(home, STUDY)
            stored += 1
        database.workers.leave("benchmark")
    return stored / (time.perf_counter() - begun)


@contextmanager
def _browsers(port: int, count: int) -> Iterator[None]:
    """Let browsers watch the study, each refreshing as the page asks it to, until the block ends."""
    ended = threading.Event()
    ready = threading.Barrier(count + 1)

    def watch() -> None:
        with Client(port) as browser:
            browser.open("study", f"study={STUDY}")
            ready.wait()
            while not ended.is_set():
                browser.watch(0.5)

    threads = [threading.Thread(target=watch) for _ in range(count)]
    for thread in threads:
        thread.start()
    ready.wait()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@contextmanager
def _served(home: Home, command: Callable[[Home, int], list[str]]) -> Iterator[tuple[int, psutil.Process]]:
    """Run a server until the block ends; gives its port and its process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, "SWEEPER_HOME": str(home.folder)}
    server = subprocess.Popen(
        command(home, port), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(f"http://127.0.0.1:{port}/")
        yield port, psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait()


def _sweeper(home: Home, port: int) -> list[str]:
    return [sys.executable, "-m", "sweeper", "dashboard", "--no-browser", "--port", str(port)]


def _optuna(home: Home, port: int) -> list[str]:
    tool = str(Path(sys.executable).with_name("optuna-dashboard"))
    return [tool, f"sqlite:///{home.database}", "--host", "127.0.0.1", "--port", str(port)]


def _wait_for(address: str, limit_s: float = 60.0) -> None:
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        try:
            urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"{address} did not answer in {limit_s:g} s")


if __name__ == "__main__":
    sys.exit(main())
