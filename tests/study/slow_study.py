"""Run or resume a study in a process of its own, slowly enough that a person could give it orders.

python slow_study.py FILE | python slow_study.py --resume NAME
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from sweeper.cli.run import _stoppable
from sweeper.config.loader import load_study
from sweeper.executors.distributed import launcher as processes
from sweeper.executors.listener import Listener
from sweeper.executors.stop_request import StopRequest
from sweeper.study.run import resume_study, run_study


class Slow(Listener):
    def trial_reported(self, number, step, metrics):
        print(number, step, flush=True)
        time.sleep(0.15)


if __name__ == "__main__":
    stop, slow = StopRequest(), Slow()
    processes.PATIENCE_S = float(os.environ.get("PATIENCE_S", processes.PATIENCE_S))
    with _stoppable(stop, slow):
        if sys.argv[1] == "--resume":
            resume_study(sys.argv[2], listener=slow, stop=stop, force=True)
        else:
            run_study(load_study(Path(sys.argv[1])), listener=slow, stop=stop, force=True)
