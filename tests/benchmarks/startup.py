"""Startup of the command line, beside ``python -c "import torch"``, and its slow imports.

    python tests/benchmarks/startup.py [STUDY]

The study is the quickstart by default. Measures the best of five runs of each command, so that the disk is warm, and
leaves with exit code 1 if one of them imports a slow library.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
RUNS = 5
SLOW = ("torch", "transformers", "optuna", "datasets", "pandas", "peft", "trl", "sqlalchemy")
PROBE = f"""
import sys
from sweeper.cli.main import app
try:
    app(sys.argv[1:])
except SystemExit as leave:
    print("code", leave.code, file=sys.stderr)
print("slow", *(set({SLOW!r}) & set(sys.modules)), file=sys.stderr)
"""


def seconds(command: list[str]) -> float:
    """Return the wall-clock time of the fastest of several runs."""
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - started)
    return min(times)


def imported(arguments: list[str]) -> list[str]:
    """Return the slow libraries that a command imports."""
    command = [sys.executable, "-c", PROBE, *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return sorted(done.stderr.splitlines()[-1].split()[1:])


def main() -> int:
    """Print the table."""
    study = sys.argv[1] if len(sys.argv) > 1 else "studies/quickstart.yaml"
    torch_s = seconds([sys.executable, "-c", "import torch"])
    print(f"{'python -c import torch':46} {torch_s:6.2f} s")
    slow_ones = 0
    for arguments in (["--help"], ["--version"], ["check", study], ["check", "--json", study]):
        taken_s = seconds([sys.executable, "-m", "sweeper", *arguments])
        libraries = imported(arguments)
        slow_ones += bool(libraries)
        name = f"sweeper {' '.join(arguments)}"
        print(f"{name:46} {taken_s:6.2f} s   {taken_s / torch_s:4.0%} of it, imports {', '.join(libraries) or 'none'}")
    print(f"slow libraries looked for: {', '.join(SLOW)}")
    return 1 if slow_ones else 0


if __name__ == "__main__":
    sys.exit(main())
