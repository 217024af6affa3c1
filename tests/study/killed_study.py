"""Run a study in a process of its own that is killed, with no chance to tidy up, at a step of a trial.

python killed_study.py FILE TRIAL STEP
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from sweeper.config.loader import load_study
from sweeper.executors.listener import Listener
from sweeper.study.run import run_study


class Deadly(Listener):
    def trial_reported(self, number, step, metrics):
        if (number, step) == (int(sys.argv[2]), int(sys.argv[3])):
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    run_study(load_study(Path(sys.argv[1])), listener=Deadly())
