"""Looking at folders in which other processes write, move and remove at the same time."""

from __future__ import annotations

import os
import shutil

from sweeper.files.atomic import below, size_of
from sweeper.upkeep.temporary import temporaries


def test_what_goes_between_two_looks_is_passed_over(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "inner").mkdir(parents=True)
    (tmp_path / "b" / "file").write_bytes(b"12345")
    seen = []
    for path in below(tmp_path):
        seen.append(path.relative_to(tmp_path).as_posix())
        shutil.rmtree(tmp_path / "a", ignore_errors=True)  # listed already, and not yet looked into
    assert sorted(seen) == ["a", "b", "b/file", "b/inner"]
    assert list(below(tmp_path / "a")) == []
    assert size_of(tmp_path / "a") == 0


def test_links_are_counted_and_not_followed(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_bytes(b"12345")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "three").write_bytes(b"123")
    link = tmp_path / "folder" / "link"
    link.symlink_to(tmp_path / "other")
    assert list(below(tmp_path / "folder")) == [link, tmp_path / "folder" / "three"]
    assert size_of(tmp_path / "folder") == 3 + link.lstat().st_size
    assert size_of(link) == link.lstat().st_size


def test_a_temporary_folder_that_goes_as_it_is_looked_at_is_nobodys_leftover(tmp_path, monkeypatch):
    path = tmp_path / ".adapter.tmp"
    path.mkdir()
    (path / "file").write_text("")
    for each in (path / "file", path):
        os.utime(each, (0, 0))
    assert list(temporaries(tmp_path)) == [path]
    monkeypatch.setattr("sweeper.upkeep.temporary.time.time", lambda: shutil.rmtree(path, ignore_errors=True) or 1e9)
    assert list(temporaries(tmp_path)) == []
