"""Several processes that run one study: any of them may be killed, stopped for a while, or told the wrong time."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from pathlib import Path

from sweeper.paths import Home
from sweeper.store import Database

from . import invariants
from .campaign import Campaign
from .forks import Forked
from .scenes import NAME, SCENES

PATIENCE_S = 120
SCENE = replace(SCENES[0], parts={**SCENES[0].parts, "search": {"n_trials": 4, "confirm": 0}})
"""One trial at a time in each process, so that each of them has some."""


class Shared:
    """A study that several processes run."""

    def __init__(self, campaign: Campaign, folder: Path) -> None:
        folder.mkdir()
        self.campaign = campaign
        self.home = Home(folder / "home")
        self.file = campaign.write(SCENE, folder)
        self.log = folder / "log"

    def begin(self, fault: dict[str, object] | None = None) -> Forked:
        return self.campaign.sweeper(["run", str(self.file)], self.home, fault)

    def holders(self) -> dict[int, int]:
        """Which process holds which trial: the number of the process by that of the trial."""
        if not invariants.study_exists(self.home, NAME):
            return {}
        with Database.open(self.home.database, create=False) as database:
            pids = {worker.token: worker.pid for worker in database.workers.all(NAME)}
            return {lease.number: pids.get(lease.worker, 0) for lease in database.leases.all(NAME)}

    def until_held_by(self, *processes: Forked, timeout_s: float = PATIENCE_S) -> dict[int, int]:
        """Wait until each of the processes runs a trial."""
        end = time.monotonic() + timeout_s
        while {process.pid for process in processes} - set((held := self.holders()).values()):
            assert time.monotonic() < end, self.said()
            time.sleep(0.02)
        return held

    def until_nothing_is_left_of(self, process: Forked, numbers: set[int]) -> None:
        """Wait until others have taken over what a process held, or ended it."""
        begun = time.monotonic()
        while numbers & {number for number, pid in self.holders().items() if pid == process.pid}:
            assert time.monotonic() - begun < PATIENCE_S, self.said()
            time.sleep(0.02)

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def ended_well(self) -> None:
        assert list(invariants.at_end(self.home, NAME, SCENE.trials)) == [], self.said()
        with Database.open(self.home.database, create=False) as database:
            assert database.workers.all(NAME) == () and database.leases.all(NAME) == ()


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
    assert "is another worker's by now" in study.said()
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
    for _ in range(2):
        second.kill(signal.SIGINT)
        time.sleep(0.1)
    assert second.wait(PATIENCE_S) == 130, study.said()
    assert "Traceback" not in study.said() and "bug in sweeper" not in study.said()
    third = study.begin()
    assert third.wait(PATIENCE_S) == 0, study.said()
    study.ended_well()
