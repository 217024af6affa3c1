"""A process that trains a trial in processes of its own until it is killed; a script for the tests."""

from __future__ import annotations

import sys
from pathlib import Path

from sweeper.config.trial import Decision, TrialSpec
from sweeper.executors.distributed import launcher as processes

if __name__ == "__main__":
    processes.WORKER = (sys.executable, str(Path(__file__).with_name("watched_worker.py")))
    spec = TrialSpec.model_validate_json(Path(sys.argv[1]).read_text())
    processes.train_in_processes(spec, lambda step, metrics: Decision.CONTINUE)
