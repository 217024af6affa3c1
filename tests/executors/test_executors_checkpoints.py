"""A packed trial whose process is killed goes on from its last checkpoint, with the curve of one that never stopped."""

from __future__ import annotations

import pytest

from sweeper.config.trial import Outcome
from sweeper.executors.lifecycle.recovery import reclaim
from sweeper.executors.listener import Listener
from sweeper.executors.packed.executor import PackedExecutor
from sweeper.executors.stop_request import StopRequest
from sweeper.paths import Home
from sweeper.study.context import open_stored

STUDY = {"search": {"n_trials": 2, "pruner": "none", "confirm": 0}}


class Killed(BaseException):
    """What no handler of ours catches, as none catches a kill."""


class KillAt(Listener):
    def __init__(self, at):
        self.at = at
        self.seen = []

    def trial_reported(self, number, step, metrics):
        self.seen.append((number, step))
        if (number, step) == self.at:
            raise Killed


def curves(context):
    points = context.database.metrics.get(context.config.name)
    return {(point.number, point.step, point.name): point.value for point in points}


def test_the_curve_after_a_kill_is_the_uninterrupted_one(begin):
    whole = begin(name="whole", executor={"slots": 2}, **STUDY)
    PackedExecutor().run(whole)
    listener = KillAt((1, 4))
    first = begin(executor={"slots": 2, "checkpoint_s": 0}, listener=listener, **STUDY)
    with pytest.raises(Killed):
        PackedExecutor().run(first)
    assert all(first.paths.trial(number).is_frozen for number in (0, 1))
    first.database.workers.leave(first.membership.token)  # as the other workers do when they find it dead
    notes = KillAt(None)
    second = open_stored("tiny", Home.current(), first.database, notes, StopRequest())
    assert reclaim(second) == 2
    PackedExecutor().run(second)
    assert {step for number, step in notes.seen if number == 1} == set(range(4, 7))  # one step is repeated
    assert [trial.outcome for trial in second.database.trials.all("tiny")] == [Outcome.COMPLETE] * 2
    assert curves(second) == curves(whole)
    assert not any(second.paths.trial(number).is_frozen for number in (0, 1))
    assert second.database.leases.all("tiny") == ()
