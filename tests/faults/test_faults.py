"""A short run of the harness: kills in every way, of every kind of study. ``python -m tests.faults`` goes on longer."""

from __future__ import annotations

from pathlib import Path

from . import invariants
from .invariants import finished, lost, study_exists
from .scenes import NAME, SCENES


def test_nothing_is_lost_by_kills_at_random_instants(campaign):
    tally = campaign.run(5)
    assert tally.breaches == []
    assert tally.kills.total() >= 5
    assert tally.finished >= 5


def test_the_harness_sees_what_is_lost_doubled_or_left(campaign, tmp_path):
    """The checks on a study that was tampered with: each of them has to say so."""
    import sqlite3

    from sweeper.paths import Home

    scene = next(scene for scene in SCENES if scene.name == "one by one")
    (tmp_path / "study").mkdir()
    home = Home(tmp_path / "study" / "home")
    assert not study_exists(home, NAME)
    process = campaign.sweeper(["run", str(campaign.write(scene, tmp_path / "study"))], home)
    assert process.wait(120) == 0
    assert list(invariants.at_end(home, NAME, scene.trials)) == []
    before = finished(home, NAME)
    assert list(lost(before, before)) == []
    with sqlite3.connect(home.database) as database:
        database.execute("UPDATE sweeper_trials SET value = value + 1 WHERE number = 0")
        database.execute("UPDATE sweeper_trials SET seed = (SELECT seed FROM sweeper_trials WHERE number = 2)")
        database.execute("UPDATE sweeper_trials SET outcome = NULL WHERE number = 1")
        database.execute("UPDATE trials SET state = 'RUNNING' WHERE number = 1")
    (home.study(NAME).trial(3).folder / ".result.json.1.tmp").write_text("{")
    next(home.study(NAME).trial(3).adapter.glob("*.safetensors")).write_bytes(b"torn")
    found = [breach.kind for breach in invariants.at_end(home, NAME, scene.trials)]
    assert {"count", "zombie", "duplicate", "disagreement", "leftover"} == set(found)
    assert [breach.text.split()[1] for breach in lost(before, finished(home, NAME))] == ["0", "1"]


def test_a_process_that_stays_is_seen_and_ended(tmp_path):
    import os
    import subprocess

    home = tmp_path / "home"
    process = subprocess.Popen(["sleep", "60"], env={**os.environ, "SWEEPER_HOME": str(home)})
    (breach,) = invariants.processes(set(), Path(home), grace_s=0.1)
    assert breach.kind == "leftover" and "sleep 60" in breach.text
    assert process.wait(10) == -9
