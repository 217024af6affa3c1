"""A dashboard that is killed as it steers a study: an order is there as a whole, or not at all."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time

from sweeper.store import Database, OrderState

from . import invariants
from .scenes import NAME
from .shared import PATIENCE_S, Shared

STEERING = """
import sys
from sweeper_dashboard.data import control
for rate in sys.argv[2:]:
    data = {"parameters": {"learning_rate": float(rate)}}
    print(control.order(sys.argv[1], control.OrderKind.ENQUEUE, actor="ada", data=data), flush=True)
"""


def test_a_dashboard_killed_as_it_gives_orders_breaks_nothing(campaign, tmp_path):
    study, draw = Shared(campaign, tmp_path / "study"), random.Random(3)
    runner = study.begin()
    study.until_held_by(runner)
    for turn in range(3):
        rates = [str(round(6e-3 + (3 * turn + each) * 1e-3, 6)) for each in range(3)]
        dashboard = subprocess.Popen(
            [sys.executable, "-c", STEERING, NAME, *rates],
            env={**os.environ, "SWEEPER_HOME": str(study.home.folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert dashboard.stdout.readline().startswith(b"Order "), dashboard.communicate()[1]
        time.sleep(draw.uniform(0, 0.3))
        dashboard.kill()
        dashboard.communicate()
    assert runner.wait(PATIENCE_S) == 0, study.said()
    assert campaign.sweeper(["resume", NAME], study.home).wait(PATIENCE_S) == 0, study.said()  # what came too late
    with Database.open(study.home.database, create=False) as database:
        orders = database.orders.all(NAME)
    assert orders and {order.state for order in orders} == {OrderState.DONE}
    assert list(invariants.at_end(study.home, NAME, study.trials + len(orders))) == [], study.said()
