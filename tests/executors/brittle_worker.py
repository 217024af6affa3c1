"""A worker that pretends to train four steps, and breaks after the second as ``BREAK`` says; without torch, to be fast.

Each attempt writes its process id, and what it was told to go on from, into the trial's folder.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

from sweeper.config.trial import Outcome, TrialResult
from sweeper.executors.distributed import rank as worker


def misfortune(first: bool) -> None:
    how, _, once = os.environ["BREAK"].partition(" ")
    if once and not first:
        return
    match how:
        case "hang":
            time.sleep(600)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            sys.exit(7)


def train(job, parent):
    noted = job.spec.folder / "attempts.jsonl"
    first = not noted.exists()
    child = subprocess.Popen(["sleep", "600"])
    with noted.open("a") as file:
        print(json.dumps({"process": os.getpid(), "child": child.pid}), file=file)
    for step in range(1, 5):
        parent.report(step, {"loss": 1 / step, "progress": step / 4})
        if step == 2:
            misfortune(first)
    child.kill()
    now = datetime.now(UTC).isoformat()
    return TrialResult(
        number=job.spec.number, outcome=Outcome.COMPLETE, value=0.25, steps=4, started_at=now, finished_at=now
    )


if __name__ == "__main__":
    worker.train = train
    worker.main()
