"""Kills of studies, one after the other, until there were as many as asked for."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg import OperationalError
from sqlalchemy import make_url

from sweeper.paths import STORAGE, Home
from sweeper.store import Database

from . import invariants
from .child import STEPS
from .forks import Forked, Forks
from .invariants import Breach, Finished
from .scenes import NAME, SCENES, Scene, Stage
from .shared import Shared

if TYPE_CHECKING:
    from conftest import TwoNodes
    from postgres_server import Postgres

OUTSIDE = ("delay", "server", "backend", "worker", "node")
"""Ways that do not need the process's help."""

MOST_KILLS = 8
"""Kills of one study; then it may end."""

HANG_S = 300.0
"""A command that takes so long hangs; the tiny studies take two seconds, and half a minute where workers have to start.
"""

PARTING_S = 20.0
"""How long processes may outlive the one that started them: the nodes of a cluster need some seconds to notice."""

WAYS = ("delay", "line", "operation", "power")
"""How a process is killed: at a random instant, or between any two lines, writes, or writes with the power gone."""

SERVER_WAYS = ("delay", "line", "operation", "server", "backend")
"""The same where the database is a server, which is killed too: all of it, or the process that serves the study."""

SPREAD_WAYS = ("delay", "line", "worker")
"""The same where processes of their own train, and one of them is killed."""

CLUSTER_WAYS = ("delay", "worker", "node")
"""The same where they are on the nodes of a cluster, one of which is killed; then another joins."""


@dataclass
class Tally:
    """What a campaign has seen."""

    kills: Counter[str] = field(default_factory=Counter)
    studies: int = 0
    finished: int = 0
    breaches: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    noticed_s: list[float] = field(default_factory=list)
    steps: int = 0
    repeated: int = 0
    seconds: float = 0.0
    unanswered: int = 0
    """Commands that found no server when they first asked for it, said so, ended with 2, and were given again."""

    def note(self, breach: Breach, where: str) -> None:
        """Keep something that did not hold."""
        self.kinds[breach.kind] += 1
        self.breaches.append(f"{where}: {breach}")


class Campaign:
    """Studies that are killed."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        forks: Forks,
        say: Callable[[str], None] = lambda text: None,
        server: Postgres | None = None,
        nodes: TwoNodes | None = None,
    ) -> None:
        self.folder = folder
        self.server = server
        if server is not None:  # what a killed server acknowledged has to be there afterwards
            server.execute("ALTER SYSTEM SET synchronous_commit = on")
            server.execute("SELECT pg_reload_conf()")
        self.nodes = nodes
        self.draw = random.Random(seed)
        self.forks = forks
        self.tally = Tally()
        self._say = say
        self._stage = Stage(folder)
        self._expected: dict[str, dict[str, Any]] = {}
        self._counted: dict[str, tuple[float, int]] = {}

    def run(self, kills: int, scenes: Sequence[Scene] = SCENES, ways: Sequence[str] = ()) -> Tally:
        """Kill so often, studies of all scenes in turn; each study is brought to its end."""
        begun = time.monotonic()
        ways = ways or (WAYS if self.server is None else SERVER_WAYS)
        begun_with = self.tally.kills.total()
        for scene in scenes:
            with self.stored():
                self._undisturbed(scene)
        while (left := kills + begun_with - self.tally.kills.total()) > 0:
            scene = scenes[self.tally.studies % len(scenes)]
            self.tally.studies += 1
            with self.stored():
                study = Killed(self, scene, self.folder / f"study-{self.tally.studies}", ways)
                study.run(min(left, MOST_KILLS))
        self.tally.seconds = time.monotonic() - begun
        return self.tally

    def notice(self, times: int) -> None:
        """Let two runners share a study and kill one, so often; keep how soon the other took over what it ran."""
        for turn in range(times):
            with self.stored():
                study = Shared(self, self.folder / f"shared-{turn}")
                first, second = study.begin(), study.begin()
                held = study.until_held_by(first, second)
                first.kill()
                lost = {number for number, pid in held.items() if pid == first.pid}
                self.tally.kills["one of two"] += 1
                self.tally.noticed_s.append(study.until_nothing_is_left_of(first, lost))
                if second.wait(HANG_S) != 0:
                    self.tally.note(Breach("fault", study.said()[-1500:]), f"two runners, turn {turn}")
                for breach in invariants.at_end(study.home, NAME, study.trials):
                    self.tally.note(breach, f"two runners, turn {turn}")

    @contextmanager
    def stored(self) -> Iterator[None]:
        """Let one home have a database of its own on the server, if there is one."""
        if self.server is None:
            yield
            return
        with self.server.database() as database:
            os.environ[STORAGE] = database.written  # for the checks here; processes get it from here
            try:
                yield
            finally:
                del os.environ[STORAGE]

    def _undisturbed(self, scene: Scene) -> None:
        """Run a scene to its end once: how it ends, how long it takes, and how many instants there are to kill it."""
        folder = self.folder / f"undisturbed-{scene.name.replace(' ', '-')}"
        folder.mkdir()
        home, counted = Home(folder / "home"), folder / "counted.json"
        fault = {"kind": "count", "counted": str(counted)}
        process = self.sweeper(["run", str(self.write(scene, folder))], home, fault)
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
        if STORAGE in os.environ:
            environment[STORAGE] = os.environ[STORAGE]
        return self.forks.sweeper(*arguments, home=home.folder, log=log, fault=fault, environment=environment)

    def fault(self, scene: Scene, way: str) -> dict[str, Any]:
        """Draw an instant; those that come after the end of a resumed study let it end."""
        seconds, changes = self._counted[scene.name]
        if way in OUTSIDE:
            return {"kind": way, "seconds": self.draw.uniform(0, seconds)}
        fault = {"kind": way, "at": self.draw.randint(1, changes)}
        if way == "line":
            return {**fault, "lines": self.draw.randint(1, 200)}
        return {**fault, "seed": self.draw.getrandbits(32)}

    def write(self, scene: Scene, folder: Path) -> Path:
        """Write the study file of a scene."""
        executor = {} if self.nodes is None else {"executor": {"address": self.nodes.address}}
        return self._stage.write(scene, folder, **executor)

    def expected(self, scene: Scene) -> dict[str, Any]:
        """Return how the undisturbed study of a scene ended."""
        return self._expected[scene.name]

    def say(self, text: str) -> None:
        """Tell whoever watches."""
        self._say(text)


def _await(server: Postgres) -> None:
    """Wait until a server takes connections again."""
    end = time.monotonic() + HANG_S
    while True:
        with suppress(OperationalError):
            server.execute("SELECT 1")
            return
        if time.monotonic() > end:
            raise TimeoutError("the server does not come back")
        time.sleep(0.1)


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
        outside = fault is not None and fault["kind"] in OUTSIDE
        log = self._home.folder.parent / "log"
        before = log.stat().st_size if log.exists() else 0
        process = self._campaign.sweeper(arguments, self._home, None if outside else fault)
        status = process.wait(fault["seconds"] if outside and fault is not None else HANG_S)
        if status is None and outside and fault is not None:
            status = self._strike(process, fault["kind"])
        if status is None:
            process.kill()
            self._tally.note(Breach("zombie", f"`sweeper {arguments[0]}` hangs"), self._where)
        for breach in invariants.processes({process.pid}, self._home.folder, PARTING_S):
            self._tally.note(breach, self._where)
        if status == -9:
            self._tally.kills[fault["kind"] if fault else "hang"] += 1
            return False
        said = log.read_bytes()[before:].decode(errors="replace")
        if status == 2 and outside and self._campaign.server is not None and said.startswith("error: database "):
            self._tally.unanswered += 1  # once a server has answered it is waited for (see `test_lost_connection.py`)
            return False
        if status != 0:
            text = f"`sweeper {arguments[0]}` ends with {status}: ...{said[-1500:]}"
            self._tally.note(Breach("fault", text), self._where)
        return True

    def _strike(self, process: Forked, kind: str) -> int | None:
        """Kill from outside, and return how the process ended then."""
        if kind == "delay":
            process.kill()
            return process.wait(10)
        server, nodes = self._campaign.server, self._campaign.nodes
        if kind == "worker":
            self._kill_a_worker(process.pid)
            return process.wait(HANG_S)
        self._tally.kills[kind] += 1
        if nodes is not None:
            nodes.kill_one()
            nodes.add_one()
            return process.wait(HANG_S)
        assert server is not None
        if kind == "server":
            server.stop()
            time.sleep(self._campaign.draw.uniform(0, 2))
            server.start()
            _await(server)
        else:
            here = make_url(os.environ[STORAGE]).database
            for (pid,) in server.execute(f"SELECT pid FROM pg_stat_activity WHERE datname = '{here}' LIMIT 1"):
                os.kill(pid, signal.SIGKILL)  # the others of the server's processes end and begin again with it
            _await(server)
        return process.wait(HANG_S)

    def _kill_a_worker(self, runner: int) -> None:
        """Kill one of the processes that train for the study, if there is any by now."""
        if not invariants.study_exists(self._home, NAME):
            return
        with Database.open(self._home.database, create=False) as database:
            pids = [worker.pid for worker in database.workers.all(NAME) if worker.pid != runner]
        if pids:
            with suppress(ProcessLookupError):
                os.kill(self._campaign.draw.choice(pids), signal.SIGKILL)
                self._tally.kills["worker"] += 1

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
        taken = (self._home.folder.parent / STEPS).stat().st_size
        if taken:  # else processes of their own train, which count none
            self._tally.steps += needed
            self._tally.repeated += taken - needed
