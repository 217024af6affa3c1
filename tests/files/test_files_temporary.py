"""Temporary files: those of dead processes are removed, those of living ones stay."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import pytest

from sweeper.files.temporary import (
    LONG_SETTLED_S,
    SETTLED_S,
    is_left_behind,
    leftovers,
    remove_leftovers,
    temporary_path,
)
from sweeper.machine import machine_id


def dead():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def aged(path, seconds):
    at = time.time() - seconds
    os.utime(path, (at, at))
    return path


def test_what_a_dead_process_left_goes_and_all_else_stays(tmp_path):
    gone = dead()
    kept = [tmp_path / "result.json", temporary_path(tmp_path / "result.json"), tmp_path / "notes.1.tmp"]
    left = [temporary_path(tmp_path / "result.json", gone), temporary_path(tmp_path / "deep" / "spec.json", gone)]
    for file in (*kept, *left):
        file.parent.mkdir(exist_ok=True)
        file.write_text("{")
    folder = temporary_path(tmp_path / "adapter", gone)
    folder.mkdir()
    temporary_path(folder / "slot.json", gone).write_text("{")
    assert remove_leftovers(tmp_path) == 3
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)
    assert remove_leftovers(tmp_path / "nowhere") == 0


def test_a_number_that_was_given_to_another_process_does_not_protect(tmp_path):
    file = temporary_path(tmp_path / "result.json")
    file.write_text("{")
    assert not is_left_behind(file)
    assert is_left_behind(aged(file, 86_400))  # this process had not begun
    file.unlink()
    assert not is_left_behind(file)


@pytest.mark.parametrize(
    ("name", "settled_s"),
    [
        (".result.json.0123456789abcdef-1.tmp", SETTLED_S),  # of another machine, whose process 1 says nothing here
        (".result.json.1.tmp", LONG_SETTLED_S),
        (".adapter.tmp", LONG_SETTLED_S),
        (".export.old", LONG_SETTLED_S),
    ],
)
def test_what_another_machine_or_no_process_names_is_left_once_it_has_settled(tmp_path, name, settled_s):
    assert machine_id() != "0123456789abcdef"
    file = tmp_path / name
    file.write_text("{")
    assert not is_left_behind(aged(file, settled_s - 60))
    assert is_left_behind(aged(file, settled_s + 60))


def test_a_temporary_folder_that_goes_as_it_is_looked_at_is_nobodys_leftover(tmp_path, monkeypatch):
    path = tmp_path / ".adapter.tmp"
    path.mkdir()
    (path / "file").write_text("")
    for each in (path / "file", path):
        os.utime(each, (0, 0))
    assert list(leftovers(tmp_path)) == [path]
    monkeypatch.setattr("sweeper.files.temporary.time.time", lambda: shutil.rmtree(path, ignore_errors=True) or 1e9)
    assert list(leftovers(tmp_path)) == []
