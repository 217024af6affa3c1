"""Looking at folders in which other processes write, move and remove at the same time."""

from __future__ import annotations

import shutil

from sweeper.files.atomic import below, size_of


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
