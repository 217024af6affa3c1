"""Kills of studies, one after the other, until there were as many as asked for."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweeper.paths import Home

from . import invariants
from .child import STEPS
from .forks import Forked, Forks
from .invariants import Breach, Finished
from .scenes import NAME, SCENES, Scene, Stage

MOST_KILLS = 8
"""Kills of one study; then it may end."""

HANG_S = 120.0
"""A command that takes so long hangs; the tiny studies take two seconds."""

WAYS = ("delay", "line", "operation", "power")


@dataclass
class Tally:
    """What a campaign has seen."""

    kills: Counter[str] = field(default_factory=Counter)
    studies: int = 0
    finished: int = 0
    breaches: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    steps: int = 0
    repeated: int = 0
    seconds: float = 0.0

    def note(self, breach: Breach, where: str) -> None:
        """Keep something that did not hold."""
        self.kinds[breach.kind] += 1
        self.breaches.append(f"{where}: {breach}")


class Campaign:
    """Studies that are killed."""

    def __init__(self, folder: Path, seed: int, forks: Forks, say: Callable[[str], None] = lambda text: None) -> None:
        self.folder = folder
        self.draw = random.Random(seed)
        self.forks = forks
        self.tally = Tally()
        self._say = say
        self._stage = Stage(folder)
        self._expected: dict[str, dict[str, Any]] = {}
        self._counted: dict[str, tuple[float, int]] = {}

    def run(self, kills: int, scenes: Sequence[Scene] = SCENES, ways: Sequence[str] = WAYS) -> Tally:
        """Kill so often, studies of all scenes in turn; each study is brought to its end."""
        begun = time.monotonic()
        for scene in scenes:
            self._undisturbed(scene)
        while (left := kills - self.tally.kills.total()) > 0:
            scene = scenes[self.tally.studies % len(scenes)]
            self.tally.studies += 1
            study = Killed(self, scene, self.folder / f"study-{self.tally.studies}", ways)
            study.run(min(left, MOST_KILLS))
        self.tally.seconds = time.monotonic() - begun
        return self.tally

    def _undisturbed(self, scene: Scene) -> None:
        """Run a scene to its end once: how it ends, how long it takes, and how many instants there are to kill it."""
        folder = self.folder / f"undisturbed-{scene.name.replace(' ', '-')}"
        folder.mkdir()
        home, counted = Home(folder / "home"), folder / "counted.json"
        fault = {"kind": "count", "counted": str(counted)}
        process = self.sweeper(["run", str(self._stage.write(scene, folder))], home, fault)
        if process.wait(HANG_S) != 0:
            raise RuntimeError(f"the undisturbed study fails: {(folder / 'log').read_text()[-2000:]}")
        seconds = time.monotonic() - process.began
        for breach in invariants.at_end(home, NAME, scene.trials):
            self.tally.note(breach, f"{scene.name}, undisturbed")
        self._expected[scene.name] = invariants.ending(home, NAME)
        changes = int(counted.read_text())
        self._counted[scene.name] = (seconds, changes)
        self._say(f"{scene.name}: undisturbed {seconds:.1f} s, {changes} changes of files and database")

    def sweeper(self, arguments: Sequence[str], home: Home, fault: dict[str, Any] | None = None) -> Forked:
        """Fork a ``sweeper`` command; what it says goes to a log beside the home, its cache is all studies'."""
        log, cache = home.folder.parent / "log", self.folder / "cache"
        environment = {"SWEEPER_CACHE": str(cache), "COLUMNS": "200"}
        return self.forks.sweeper(*arguments, home=home.folder, log=log, fault=fault, environment=environment)

    def fault(self, scene: Scene, way: str) -> dict[str, Any]:
        """Draw an instant; those that come after the end of a resumed study let it end."""
        seconds, changes = self._counted[scene.name]
        if way == "delay":
            return {"kind": way, "seconds": self.draw.uniform(0, seconds)}
        fault = {"kind": way, "at": self.draw.randint(1, changes)}
        if way == "line":
            return {**fault, "lines": self.draw.randint(1, 200)}
        return {**fault, "seed": self.draw.getrandbits(32)}

    def write(self, scene: Scene, folder: Path) -> Path:
        """Write the study file of a scene."""
        return self._stage.write(scene, folder)

    def expected(self, scene: Scene) -> dict[str, Any]:
        """Return how the undisturbed study of a scene ended."""
        return self._expected[scene.name]

    def say(self, text: str) -> None:
        """Tell whoever watches."""
        self._say(text)


class Killed:
    """One study, from its first kill to its end."""

    def __init__(self, campaign: Campaign, scene: Scene, folder: Path, ways: Sequence[str]) -> None:
        folder.mkdir()
        self._campaign = campaign
        self._tally = campaign.tally
        self._scene = scene
        self._ways = ways
        self._home = Home(folder / "home")
        self._file = campaign.write(scene, folder)
        self._known: Finished = {}
        self._where = f"{scene.name} in {folder.name}"

    def run(self, kills: int) -> None:
        """Kill the study so often, unless it ends before, and bring it to its end."""
        begun = self._tally.kills.total()
        before = len(self._tally.breaches)
        while self._tally.kills.total() - begun < kills:
            way = self._campaign.draw.choice(self._ways)
            fault = self._campaign.fault(self._scene, way)
            if self._launch(fault):
                break
            self._check(f"{self._where}, after {fault}")
        else:
            self._launch(None)
        self._end()
        broken = len(self._tally.breaches) - before
        self._campaign.say(
            f"{self._tally.kills.total()} kills: {self._where}, {self._tally.kills.total() - begun} of them"
            + "".join(f"\n  {text}" for text in self._tally.breaches[before:])
        )
        if not broken:
            shutil.rmtree(self._home.folder.parent)

    def _launch(self, fault: dict[str, Any] | None) -> bool:
        """Run or resume the study, and return whether it came to its end."""
        resumes = invariants.study_exists(self._home, NAME)
        arguments = ["resume", NAME] if resumes else ["run", str(self._file)]
        outside = fault is not None and fault["kind"] == "delay"
        process = self._campaign.sweeper(arguments, self._home, None if outside else fault)
        status = process.wait(fault["seconds"] if outside and fault is not None else HANG_S)
        if status is None and outside:
            process.kill()
            status = process.wait(10)
        elif status is None:
            process.kill()
            self._tally.note(Breach("zombie", f"`sweeper {arguments[0]}` hangs"), self._where)
        for breach in invariants.processes({process.pid}, self._home.folder):
            self._tally.note(breach, self._where)
        if status == -9:
            self._tally.kills[fault["kind"] if fault else "hang"] += 1
            return False
        if status != 0:
            log = (self._home.folder.parent / "log").read_text(errors="replace")[-1500:]
            text = f"`sweeper {arguments[0]}` ends with {status}: ...{log}"
            self._tally.note(Breach("fault", text), self._where)
        return True

    def _check(self, where: str) -> None:
        known = invariants.finished(self._home, NAME)
        for breach in invariants.lost(self._known, known):
            self._tally.note(breach, where)
        self._known = known

    def _end(self) -> None:
        self._check(self._where)
        if not invariants.study_exists(self._home, NAME):
            return
        breaches = [*invariants.at_end(self._home, NAME, self._scene.trials)]
        if self._scene.ordered:
            found = invariants.ending(self._home, NAME)
            breaches += invariants.different(found, self._campaign.expected(self._scene))
        for breach in breaches:
            self._tally.note(breach, self._where)
        self._tally.finished += len(self._known)
        needed = sum(len(losses) for *_, losses in invariants.ending(self._home, NAME)["trials"])
        self._tally.steps += needed
        taken = (self._home.folder.parent / STEPS).stat().st_size
        self._tally.repeated += taken - needed
