"""Several processes that run one study: any of them may be killed, stopped for a while, or told the wrong time."""

from __future__ import annotations

import signal
import time
from contextlib import suppress

from .shared import PATIENCE_S, Shared


def test_two_share_a_study_and_one_takes_over_what_the_other_was_killed_with(campaign, tmp_path):
    study = Shared(campaign, tmp_path / "study")
    first, second = study.begin(), study.begin()
    held = study.until_held_by(first, second)
    lost = {number for number, pid in held.items() if pid == first.pid}
    first.kill()
    assert first.wait(10) == -9
    study.until_nothing_is_left_of(first, lost)
    assert second.wait(PATIENCE_S) == 0, study.said()
    assert "1 other worker(s) ended" in study.said()
    study.ended_well()


def test_one_that_stood_still_beyond_the_grace_period_is_fenced(campaign, tmp_path):
    study = Shared(campaign, tmp_path / "study")
    first, second = study.begin(), study.begin()
    held = study.until_held_by(first, second)
    lost = {number for number, pid in held.items() if pid == first.pid}
    first.kill(signal.SIGSTOP)
    study.until_nothing_is_left_of(first, lost)
    first.kill(signal.SIGCONT)
    assert (first.wait(PATIENCE_S), second.wait(PATIENCE_S)) == (0, 0), study.said()
    assert "was reassigned" in study.said()
    study.ended_well()


def test_clocks_that_jump_kill_nobody_and_hide_nobodys_death(campaign, tmp_path):
    study = Shared(campaign, tmp_path / "study")
    forward, back = ({"kind": "clock", "seconds": seconds, "after_s": 0.5} for seconds in (3600, -3600))
    first, second = study.begin(forward), study.begin(back)
    held = study.until_held_by(first, second)
    lost = {number for number, pid in held.items() if pid == first.pid}
    first.kill()
    study.until_nothing_is_left_of(first, lost)
    assert second.wait(PATIENCE_S) == 0, study.said()
    assert "another worker's by now" not in study.said()  # neither thought the other dead while it lived
    study.ended_well()


def test_ctrl_c_once_and_twice(campaign, tmp_path):
    study = Shared(campaign, tmp_path / "study")
    first = study.begin()
    study.until_held_by(first)
    first.kill(signal.SIGINT)
    assert first.wait(PATIENCE_S) == 130, study.said()
    assert study.holders() == {}
    second = study.begin()
    study.until_held_by(second)
    second.kill(signal.SIGINT)
    time.sleep(0.05)
    with suppress(ProcessLookupError):  # it may have ended on the first
        second.kill(signal.SIGINT)
    assert second.wait(PATIENCE_S) == 130, study.said()
    assert "Traceback" not in study.said() and "bug in sweeper" not in study.said()
    third = study.begin()
    assert third.wait(PATIENCE_S) == 0, study.said()
    study.ended_well()
