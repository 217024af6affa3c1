"""A study whose disk is full or read-only waits, says so, and goes on: on real mounts, with real processes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.paths import Home

from . import invariants
from .campaign import Campaign
from .scenes import NAME, SCENES

SCENE = replace(SCENES[0], parts={**SCENES[0].parts, "search": {"n_trials": 3}})


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """Return what mounts a small disk of its own at a folder."""
    places: list[Path] = []

    def mount(folder: Path, size: str = "12m") -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
        places.append(folder)
        return folder

    yield mount
    for folder in reversed(places):
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> Path:
    """Write until the disk is full."""
    ballast = folder / "ballast"
    with pytest.raises(OSError, match="No space left"), ballast.open("wb", buffering=0) as file:
        while True:
            if file.write(bytes(4096)) < 4096:
                file.write(bytes(1))
    return ballast


class Watched:
    """A study under way, and what it says."""

    def __init__(self, campaign: Campaign, home: Home, *arguments: str) -> None:
        self._log = home.folder.parent / "log"
        self._from = self._log.stat().st_size if self._log.exists() else 0
        self.process = campaign.sweeper(arguments, home)

    def said(self) -> str:
        return self._log.read_text(errors="replace")[self._from :] if self._log.exists() else ""

    def until(self, text: str, timeout_s: float = 90) -> None:
        end = time.monotonic() + timeout_s
        while text not in self.said():
            assert time.monotonic() < end and self.process.wait(0.05) is None, self.said()


def begun(campaign: Campaign, folder: Path) -> tuple[Watched, Home]:
    folder.mkdir(exist_ok=True)
    home = Home(folder / "home")
    study = Watched(campaign, home, "run", str(campaign.write(SCENE, folder)))
    study.until("trial 0 step 4")
    return study, home


def ended_well(home: Home) -> None:
    assert list(invariants.at_end(home, NAME, SCENE.trials)) == []


def test_a_full_disk_is_waited_for(campaign, tmp_path, mounted):
    mounted(tmp_path / "study" / "home")
    study, home = begun(campaign, tmp_path / "study")
    ballast = fill(home.folder)
    study.until("the disk is full")
    assert "free some space" in study.said() and "Ctrl-C stops" in study.said()
    said = study.said()
    time.sleep(1)
    assert study.said() == said  # once is enough
    ballast.unlink()
    assert study.process.wait(90) == 0, study.said()
    assert "note: resumed after" in study.said()
    assert "failed" not in study.said()
    ended_well(home)


def test_a_stop_while_it_waits_is_heard_and_resumed_from(campaign, tmp_path, mounted):
    mounted(tmp_path / "study" / "home")
    study, home = begun(campaign, tmp_path / "study")
    ballast = fill(home.folder)
    study.until("the disk is full")
    study.process.kill(signal.SIGINT)
    assert study.process.wait(30) == 130, study.said()
    assert "Traceback" not in study.said() and "bug" not in study.said()
    ballast.unlink()
    again = Watched(campaign, home, "resume", NAME)
    assert again.process.wait(90) == 0, again.said()
    ended_well(home)


def test_a_disk_that_turns_read_only_is_waited_for(campaign, tmp_path, mounted):
    trials = mounted(tmp_path / "study" / "home" / "studies" / NAME)
    study, home = begun(campaign, tmp_path / "study")
    end = time.monotonic() + 10
    while subprocess.run(["mount", "-o", "remount,ro", trials], capture_output=True).returncode:
        assert time.monotonic() < end  # busy while a file is open for writing
    study.until("note: paused: the disk is read-only")
    subprocess.run(["mount", "-o", "remount,rw", trials], check=True)
    assert study.process.wait(90) == 0, study.said()
    ended_well(home)


def test_a_study_that_begins_on_a_full_disk_waits_too(campaign, tmp_path, mounted):
    folder = tmp_path / "study"
    mounted(folder / "home" / "studies")
    ballast = fill(folder / "home" / "studies")
    home = Home(folder / "home")
    study = Watched(campaign, home, "run", str(campaign.write(SCENE, folder)))
    study.until("the disk is full")
    ballast.unlink()
    assert study.process.wait(90) == 0, study.said()
    ended_well(home)
    shutil.rmtree(home.folder / "studies" / NAME)
