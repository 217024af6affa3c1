"""A study that several processes run, as one sees it who kills some of them."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.paths import Home
from sweeper.store import Database

from . import invariants
from .forks import Forked
from .scenes import NAME, SCENES

if TYPE_CHECKING:
    from .campaign import Campaign

PATIENCE_S = 120
"""How long to wait for what takes seconds where nothing else runs."""

SCENE = replace(SCENES[0], parts={**SCENES[0].parts, "search": {"n_trials": 4, "confirm": 0}})
"""One trial at a time in each process, so that each of them has some."""


class Shared:
    """A study that several processes run."""

    def __init__(self, campaign: Campaign, folder: Path) -> None:
        folder.mkdir()
        self.campaign = campaign
        self.home = Home(folder / "home")
        self.trials = SCENE.trials
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

    def until_nothing_is_left_of(self, process: Forked, numbers: set[int]) -> float:
        """Wait until others have taken over what a process held; return how long that took, in seconds."""
        begun = time.monotonic()
        while numbers & {number for number, pid in self.holders().items() if pid == process.pid}:
            assert time.monotonic() - begun < PATIENCE_S, self.said()
            time.sleep(0.02)
        return time.monotonic() - begun

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def ended_well(self) -> None:
        assert list(invariants.at_end(self.home, NAME, SCENE.trials)) == [], self.said()
        with Database.open(self.home.database, create=False) as database:
            assert database.workers.all(NAME) == () and database.leases.all(NAME) == ()
