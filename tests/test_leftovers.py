"""Temporary files: those of the dead are removed, those of the living stay."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from sweeper.files.temporary import is_abandoned, remove_leftovers


def dead():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_a_dead_process_left_goes_and_all_else_stays(tmp_path):
    gone, ours = dead(), os.getpid()
    kept = [tmp_path / "result.json", tmp_path / f".result.json.{ours}.tmp", tmp_path / "notes.1.tmp"]
    left = [tmp_path / f".result.json.{gone}.tmp", tmp_path / "deep" / f".spec.json.{gone}.tmp"]
    for file in (*kept, *left):
        file.parent.mkdir(exist_ok=True)
        file.write_text("{")
    folder = tmp_path / f".adapter.{gone}.tmp"
    folder.mkdir()
    (folder / f".slot.json.{gone}.tmp").write_text("{")
    assert remove_leftovers(tmp_path) == 3
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)
    assert remove_leftovers(tmp_path / "nowhere") == 0


def test_a_number_that_was_given_to_another_process_does_not_protect(tmp_path):
    file = tmp_path / f".result.json.{os.getpid()}.tmp"
    file.write_text("{")
    assert not is_abandoned(file)
    day_ago = time.time() - 86_400
    os.utime(file, (day_ago, day_ago))  # this process had not begun
    assert is_abandoned(file)
